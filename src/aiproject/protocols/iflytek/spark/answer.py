"""Reads the frames of one answer, in order.

The frames are not only read: clients of the legacy API receive them unchanged. Such a client reads the body in pieces
of 2048 bytes and decodes each piece separately, so a longer frame must be pure ASCII: a character that is split would
crash the client. It also loses the rest of an answer on a frame without text. `SparkAnswer` passes each frame on
unchanged if it is safe for such a client, and repairs it only if it is not.

Sources: iFlytek, 《星火认知大模型 Web API 文档》, 《星火X1 websocket 协议文档》, 《精调服务 WebSocket 协议》;
error codes in `aiproject.protocols.iflytek.error_codes`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec

from aiproject.errors import UpstreamFailed, UpstreamProtocolViolation, UpstreamTruncated
from aiproject.protocols.chat import ChatEvent, FinishReason, ToolCallDelta, Usage
from aiproject.protocols.iflytek.error_codes import Service, quotable, refusal
from aiproject.protocols.iflytek.spark.frames import MAX_CLIENT_FRAME, STATUS_FIRST, STATUS_LAST, STATUS_MIDDLE
from aiproject.protocols.iflytek.spark.repair import WrongTypeError, normalise, repair

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["MAX_FRAMES", "SparkAnswer"]

MAX_FRAME_BYTES: Final = 1024 * 1024
"""The largest frame in bytes. Real ones have 200 to 500 bytes; those with search sources have some kilobytes."""

MAX_FRAMES: Final = 100_000
"""Frames of one answer. The longest completion of any model is 65535 tokens, and a frame brings at least one."""

MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""Bytes of one answer in UTF-8: text, reasoning and arguments; 65535 tokens are well under 1 MiB."""

MAX_TOKENS_REPORTED: Final = 10_000_000
"""The largest plausible consumption of one call; the largest context is 131072 tokens."""

_MAX_SID: Final = 64
_MAX_CODE: Final = 999_999_999  # documented codes have five digits, one has six

# Only the members in use: msgspec skips the others without creating objects for them. Members that have been observed
# as null are optional; any other deviation in type goes to the lenient path.


class _Header(msgspec.Struct, gc=False):
    code: int
    status: int | None = None
    sid: str = ""
    message: str = ""


class _FunctionCall(msgspec.Struct, gc=False):
    name: str
    arguments: str = ""


class _Text(msgspec.Struct, gc=False):
    content: str | None = None
    role: str | None = None
    reasoning_content: str | None = None
    function_call: _FunctionCall | None = None


class _Choices(msgspec.Struct, gc=False):
    status: int | None = None
    seq: int | None = None
    text: list[_Text] | None = None


class _UsageText(msgspec.Struct, gc=False):
    question_tokens: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    text: _UsageText | None = None


class _Payload(msgspec.Struct, gc=False):
    choices: _Choices | None = None
    usage: _Usage | None = None


class _Frame(msgspec.Struct, gc=False):
    header: _Header
    payload: _Payload | None = None
    # No frame of the platform has this member, but the desktop app takes a frame that does for an error of ours.
    code: Any = msgspec.UNSET


# The form of nearly every frame: a piece of the model's text, exactly as documented. The decoder verifies it by the
# types alone, which makes this the fast path; any other frame takes the careful one.


class _PlainHeader(msgspec.Struct, gc=False):
    code: Literal[0]
    status: Literal[0, 1]
    sid: str = ""
    message: str = ""


class _PlainText(msgspec.Struct, gc=False):
    content: Annotated[str, msgspec.Meta(min_length=1)]
    role: Literal["assistant"] = "assistant"
    reasoning_content: None = None
    function_call: None = None


class _PlainChoices(msgspec.Struct, gc=False):
    text: tuple[_PlainText]
    status: int | None = None
    seq: int | None = None


class _PlainPayload(msgspec.Struct, gc=False):
    choices: _PlainChoices
    usage: _Usage | None = None


class _PlainFrame(msgspec.Struct, gc=False):
    header: _PlainHeader
    payload: _PlainPayload
    code: msgspec.UnsetType = msgspec.UNSET


_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_plain_frame = msgspec.json.Decoder(_PlainFrame).decode


class SparkAnswer:
    """Reads the frames of one answer, in order.

    Attributes:
        sid: the platform's session id, once a frame contained one; at most 64 characters.
        usage: the consumption of the call; ``None`` until the last frame, and after it if that had no usable numbers.
        finished: whether the last frame has arrived. The answer is complete then, however the connection ends.
        frames: the number of frames received.
    """

    __slots__ = ("_closed", "_size", "finished", "frames", "sid", "usage")

    def __init__(self) -> None:
        self.sid: str | None = None
        self.usage: Usage | None = None
        self.finished = False
        self.frames = 0
        self._size = 0
        self._closed = False

    def receive_all(self, frames: Collection[bytes], events: list[ChatEvent]) -> None:
        """Read the next frames, each as `receive` does; frames after the last one of the answer are ignored.

        Args:
            events: receives the events, including those before a frame that is refused.

        Raises:
            UpstreamFailed: as `receive`.
        """
        if self._closed:
            raise UpstreamProtocolViolation("a frame came after the last one", sid=self.sid)
        are_single_lines = _are_single_lines(frames)
        for frame in frames:
            if (
                are_single_lines
                and self.sid is not None
                and len(frame) <= MAX_CLIENT_FRAME
                and self.frames < MAX_FRAMES
            ):
                # Nearly every frame takes this path, in half of the time that `receive` needs for the same result. It
                # is inline because a function call for each frame would take a quarter of that time.
                try:
                    text = _decode_plain_frame(frame).payload.choices.text[0].content
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    pass  # not in the documented form: read by `receive`
                else:
                    self.frames += 1
                    self._size += len(text) if text.isascii() else len(text.encode())
                    if self._size > MAX_ANSWER_BYTES:
                        raise self._too_long()
                    events.append(ChatEvent(text, "", (), None, False, frame))
                    continue
            events.append(self.receive(frame))
            if self.finished:
                return

    def receive(self, frame: bytes) -> ChatEvent:
        """Read the next frame.

        An event's ``native`` is the object ``frame`` itself if that is safe for a client of the legacy API. It is a
        repaired copy if the frame is longer than `MAX_CLIENT_FRAME` and not ASCII, spans several lines, lacks
        ``content`` or one of the four usage numbers, or has members of the wrong type. It is ``None`` for a frame
        without text elements (for example search sources), unless that frame is the last.

        Raises:
            UpstreamRefused: the frame contains an error code. May occur in the middle of an answer (10014).
            UpstreamProtocolViolation: the frame violates the protocol or a limit, or follows the last one.
        """
        if self._closed:
            raise UpstreamProtocolViolation("a frame came after the last one", sid=self.sid)
        try:
            return self._receive(frame)
        except UpstreamFailed:
            self._closed = True
            raise
        except RecursionError:
            self._closed = True
            raise UpstreamProtocolViolation("a frame is nested too deeply", sid=self.sid) from None

    def connection_ended(self) -> None:
        """Report that the connection ended.

        Raises:
            UpstreamTruncated: the last frame has not arrived, so the answer is not a success. Another attempt makes
                sense only if no frame has arrived.
        """
        if not self.finished:
            detail = f"the connection ended after {self.frames} frames"
            raise UpstreamTruncated(detail, sid=self.sid, retryable=self.frames == 0)

    def _receive(self, frame: bytes) -> ChatEvent:
        self.frames += 1
        if len(frame) > MAX_FRAME_BYTES:
            raise self._violation(f"a frame of {len(frame)} bytes")
        if self.frames > MAX_FRAMES:
            raise self._violation(f"an answer of more than {MAX_FRAMES} frames")
        is_ascii = frame.isascii()
        repaired: dict[str, Any] | None = None
        try:
            if not is_ascii:
                frame.decode()  # msgspec does not validate the strings that it skips
            message = _decode_frame(frame)
        except UnicodeDecodeError:
            raise self._violation("a frame that is not UTF-8") from None
        except msgspec.DecodeError:
            repaired = self._load(frame)
            message = self._read_leniently(repaired)

        header = message.header
        if self.sid is None and header.sid:
            # The same on every frame. It is sanitised because it comes from outside and reaches the log.
            self.sid = quotable(header.sid, _MAX_SID) or None
        if header.code != 0:
            # Checked before the payload, because the payload of an error frame may be missing or of any form.
            if abs(header.code) > _MAX_CODE:
                raise self._violation("an absurd error code")
            raise refusal(Service.SPARK, header.code, header.message, self.sid)

        payload = message.payload
        choices = payload.choices if payload is not None else None
        is_fit = repaired is None and message.code is msgspec.UNSET
        status = header.status
        if status is None:
            # A client needs the status, so the frame is repaired.
            is_fit = False
            status = choices.status if choices is not None else None
            if status is None:
                status = STATUS_FIRST if self.frames == 1 else STATUS_MIDDLE
        if not STATUS_FIRST <= status <= STATUS_LAST:
            raise self._violation(f"a frame of status {quotable(str(status), 20)}")
        event = ChatEvent(is_last=status == STATUS_LAST)

        has_text = False
        if choices is not None and choices.text is not None:
            for element in choices.text:
                if element.role == "tool":  # sources of a web search, not text of the model
                    is_fit = False
                    continue
                has_text = True
                if element.content is None:
                    is_fit = False
                elif element.content:
                    event.text += element.content
                if element.reasoning_content:
                    event.reasoning += element.reasoning_content
                call = element.function_call
                if call is not None and not event.tool_calls:
                    # One complete call per answer (chat chapter A5).
                    event.tool_calls = (ToolCallDelta(0, call.name, call.arguments),)
        self._count_text(event.text)
        # All that the model generates counts: an endless answer could consist of reasoning alone.
        if event.reasoning:
            self._count_text(event.reasoning)
        for tool_call in event.tool_calls:
            self._count_text(tool_call.name + tool_call.arguments)

        if event.is_last:
            # The platform does not distinguish an answer that reached its limit from one that ended by itself.
            event.finish_reason = FinishReason.TOOL_CALLS if event.tool_calls else FinishReason.STOP
            is_fit = is_fit and has_text
            if payload is not None and payload.usage is not None and payload.usage.text is not None:
                event.usage, is_intact = self._read_usage(payload.usage.text)
                is_fit = is_fit and is_intact
        elif not has_text:
            # Passed to no client: the desktop app loses the rest of an answer on a frame without text.
            return event
        if is_fit and (is_ascii or len(frame) <= MAX_CLIENT_FRAME) and b"\n" not in frame and b"\r" not in frame:
            # The very object that was received: no copy is made on the way from the platform to the client.
            event.native = frame
        else:
            if repaired is None:
                repaired = self._load(frame)
            try:
                event.native = repair(repaired, status=status, seq=self.frames - 1, usage=event.usage)
            except ValueError:  # a number beyond the range of JSON readers
                raise self._violation("a frame with an impossible number") from None
        if event.is_last:
            self.usage = event.usage
            self.finished = self._closed = True
        return event

    def _count_text(self, text: str) -> None:
        """Add to the size of the answer, and refuse an endless one."""
        self._size += len(text) if text.isascii() else len(text.encode())
        if self._size > MAX_ANSWER_BYTES:
            raise self._too_long()

    def _too_long(self) -> UpstreamProtocolViolation:
        self._closed = True
        return self._violation(f"an answer of more than {MAX_ANSWER_BYTES} bytes")

    def _read_usage(self, numbers: _UsageText) -> tuple[Usage | None, bool]:
        """Read the usage numbers; also return whether the frame may stay unchanged with respect to them.

        A missing number is computed from the others; the result is ``(None, True)`` if that is impossible.
        ``total_tokens`` is what the platform bills, so it may exceed the sum of its parts (hidden tokens of a search).
        If it is less than the sum, it is raised to it, because the parts prove a higher consumption. The client's frame
        is changed as well, so that the client reads the number that is charged.
        """
        prompt, completion, total = numbers.prompt_tokens, numbers.completion_tokens, numbers.total_tokens
        for number in (prompt, completion, total, numbers.question_tokens):
            if number is not None and not 0 <= number <= MAX_TOKENS_REPORTED:
                raise self._violation("absurd numbers of tokens")
        if total is None:
            if prompt is None or completion is None:
                return None, True
            billed = prompt + completion
        else:
            if prompt is None:
                # With the total alone, all of it counts as input: only the sum is billed, not the split.
                prompt = total if completion is None else max(total - completion, 0)
            if completion is None:
                completion = max(total - prompt, 0)
            billed = max(total, prompt + completion)
        usage = Usage(prompt, completion, billed, numbers.question_tokens or 0)
        is_complete = None not in (numbers.prompt_tokens, numbers.completion_tokens, numbers.question_tokens)
        return usage, is_complete and billed == total

    def _load(self, frame: bytes) -> dict[str, Any]:
        """Parse a frame into plain objects, for the lenient path."""
        try:
            loaded = json.loads(frame.decode(), parse_constant=_refuse_constant)
        except ValueError:  # not UTF-8, not JSON, or an integer of thousands of digits
            raise self._violation("a frame that is not JSON") from None
        if not isinstance(loaded, dict):
            raise self._violation("a frame that is not a JSON object")
        return loaded

    def _read_leniently(self, loaded: dict[str, Any]) -> _Frame:
        """Read a frame with a member of an undocumented type, and repair ``loaded`` in place."""
        try:
            normalise(loaded)
            return msgspec.convert(loaded, _Frame)
        except (WrongTypeError, msgspec.ValidationError):
            raise self._violation("a frame that does not fit the protocol") from None

    def _violation(self, detail: str) -> UpstreamProtocolViolation:
        return UpstreamProtocolViolation(f"Spark sent {detail}", sid=self.sid)


def _are_single_lines(frames: Collection[bytes]) -> bool:
    """Whether every frame is UTF-8 on a single line. One check for all frames costs little more than for one."""
    joined = b" ".join(frames)  # the spaces keep a truncated character from being completed by the next frame
    if b"\n" in joined or b"\r" in joined:
        return False
    if not joined.isascii():
        try:
            joined.decode()  # msgspec does not validate the strings that it skips
        except UnicodeDecodeError:
            return False
    return True


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
