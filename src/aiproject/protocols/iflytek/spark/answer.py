"""Reading the frames of one answer, in order.

The frames are not only read: a client of the legacy API is shown them as they are. That client reads the body in pieces
of 2048 bytes and decodes each alone, so a longer frame must be pure ASCII, or a character cut in two ends the program;
and it loses the rest of an answer on a frame without text. `SparkAnswer` hands each frame through untouched when it is
fit for such a client, and repairs it only when it is not.

Sources: iFlytek, 《星火认知大模型 Web API 文档》, 《星火X1 websocket 协议文档》, 《精调服务 WebSocket 协议》;
error codes in `aiproject.protocols.iflytek.error_codes`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec

from aiproject.errors import UpstreamFailed, UpstreamNonsense, UpstreamTruncated
from aiproject.protocols.chat import ChatEvent, FinishReason, ToolCallDelta, Usage
from aiproject.protocols.iflytek.error_codes import Service, quotable, refusal
from aiproject.protocols.iflytek.spark.frames import MAX_CLIENT_FRAME, STATUS_FIRST, STATUS_LAST, STATUS_MIDDLE
from aiproject.protocols.iflytek.spark.repair import WrongTypeError, normalise, repair

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["MAX_ANSWER_BYTES", "MAX_FRAMES", "SparkAnswer"]

MAX_FRAME_BYTES: Final = 1024 * 1024
"""One frame of an answer. Real ones have 200 to 500 bytes; search sources have some kilobytes."""

MAX_FRAMES: Final = 100_000
"""Frames of one answer. The longest completion of any model is 65535 tokens, and a frame brings at least one."""

MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""Text, thinking and call arguments of one answer in UTF-8; 65535 tokens are well under 1 MiB."""

MAX_TOKENS_REPORTED: Final = 10_000_000
"""What one call can be said to consume; the largest context is 131072 tokens."""

_MAX_SID: Final = 64
_MAX_CODE: Final = 999_999_999  # the documents' codes have five digits, and six in one place

# Only the members that we use: msgspec skips the others without making objects of them. Members that may be null in
# the wild are optional; a type that is wrong in another way goes to the lenient path.


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
    # No frame of the platform has this; the desktop app takes a frame that does for an error of ours.
    code: Any = msgspec.UNSET


# What nearly every frame of an answer is: a piece of the model's words, as the documents show it. The decoder tells it
# by its type alone; whatever is different is looked at with care.


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
        sid: the platform's session id, once a frame brought one; at most 64 characters.
        usage: what the call consumed; ``None`` until the last frame, and after it if that told nothing usable.
        finished: the last frame came, so the answer is complete; however the connection ends now does not matter.
        frames: how many frames came.
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
        """Read the next frames, each as `receive` does; what follows the last frame of the answer is not looked at.

        Args:
            events: takes what they say, also of those before a frame that is refused.

        Raises:
            UpstreamFailed: as `receive`.
        """
        if self._closed:
            raise UpstreamNonsense("a frame came after the last one", sid=self.sid)
        are_single_lines = _are_single_lines(frames)
        for frame in frames:
            if (
                are_single_lines
                and self.sid is not None
                and len(frame) <= MAX_CLIENT_FRAME
                and self.frames < MAX_FRAMES
            ):
                # Nearly every frame passes here, in half of the time; `receive` would say the same of it. It is written
                # out since a call of a function for each frame would take a quarter of that time.
                try:
                    text = _decode_plain_frame(frame).payload.choices.text[0].content
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    pass  # not as documented: looked at with care
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

        An event's ``native`` is the very object ``frame`` wherever that is fit for a client of the original
        interface. It is made anew where the frame is longer than `MAX_CLIENT_FRAME` and not ASCII, spans several lines,
        lacks ``content`` or one of the four usage numbers, or has members of the wrong type. It is ``None`` for a frame
        without text elements (search sources, for example), unless that frame is the last.

        Raises:
            UpstreamRefused: the frame carries an error code. May come in mid-answer (10014).
            UpstreamNonsense: the frame is not one of the protocol's, over a limit, or follows the last one.
        """
        if self._closed:
            raise UpstreamNonsense("a frame came after the last one", sid=self.sid)
        try:
            return self._receive(frame)
        except UpstreamFailed:
            self._closed = True
            raise
        except RecursionError:
            self._closed = True
            raise UpstreamNonsense("a frame is nested too deeply", sid=self.sid) from None

    def connection_ended(self) -> None:
        """Say that the connection ended.

        Raises:
            UpstreamTruncated: the last frame had not come; what there is of the answer is no success. Worth a new try
                only where not a single frame came.
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
                frame.decode()  # msgspec does not look into the strings that it skips
            message = _decode_frame(frame)
        except UnicodeDecodeError:
            raise self._violation("a frame that is not UTF-8") from None
        except msgspec.DecodeError:
            repaired = self._load(frame)
            message = self._read_leniently(repaired)

        header = message.header
        if self.sid is None and header.sid:
            self.sid = quotable(header.sid, _MAX_SID) or None
        if header.code != 0:
            if abs(header.code) > _MAX_CODE:
                raise self._violation("an absurd error code")
            raise refusal(Service.SPARK, header.code, header.message, self.sid)

        payload = message.payload
        choices = payload.choices if payload is not None else None
        is_fit = repaired is None and message.code is msgspec.UNSET
        status = header.status
        if status is None:
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
                if element.role == "tool":  # sources of a web search, not the model's words
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
                    event.tool_calls = (ToolCallDelta(0, call.name, call.arguments),)
        self._count_text(event.text)
        if event.reasoning:
            self._count_text(event.reasoning)
        for tool_call in event.tool_calls:
            self._count_text(tool_call.name + tool_call.arguments)

        if event.is_last:
            # The platform does not tell an answer that ended at its limit from one that ended by itself.
            event.finish_reason = FinishReason.TOOL_CALLS if event.tool_calls else FinishReason.STOP
            is_fit = is_fit and has_text
            if payload is not None and payload.usage is not None and payload.usage.text is not None:
                event.usage, is_intact = self._read_usage(payload.usage.text)
                is_fit = is_fit and is_intact
        elif not has_text:
            return event
        if is_fit and (is_ascii or len(frame) <= MAX_CLIENT_FRAME) and b"\n" not in frame and b"\r" not in frame:
            event.native = frame
        else:
            if repaired is None:
                repaired = self._load(frame)
            try:
                event.native = repair(repaired, status=status, seq=self.frames - 1, usage=event.usage)
            except ValueError:  # a number beyond the range of JSON's readers
                raise self._violation("a frame with an impossible number") from None
        if event.is_last:
            self.usage = event.usage
            self.finished = self._closed = True
        return event

    def _count_text(self, text: str) -> None:
        """Count what the answer has grown by, and stop one without end."""
        self._size += len(text) if text.isascii() else len(text.encode())
        if self._size > MAX_ANSWER_BYTES:
            raise self._too_long()

    def _too_long(self) -> UpstreamNonsense:
        self._closed = True
        return self._violation(f"an answer of more than {MAX_ANSWER_BYTES} bytes")

    def _read_usage(self, numbers: _UsageText) -> tuple[Usage | None, bool]:
        """Read the numbers; also say whether the frame may stay as it is, with respect to them.

        A number that lacks is worked out from the others; ``(None, True)`` if that cannot be done. ``total_tokens`` is
        what the platform bills, so it may be more than its parts (hidden tokens of a search); where it is less, the
        parts prove more to be consumed, and the total is raised to their sum, in the client's frame as well, so that
        what is charged is what the client reads.
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
                # With the total alone, all of it is counted as input: the split is not billed, the sum is.
                prompt = total if completion is None else max(total - completion, 0)
            if completion is None:
                completion = max(total - prompt, 0)
            billed = max(total, prompt + completion)
        usage = Usage(prompt, completion, billed, numbers.question_tokens or 0)
        is_complete = None not in (numbers.prompt_tokens, numbers.completion_tokens, numbers.question_tokens)
        return usage, is_complete and billed == total

    def _load(self, frame: bytes) -> dict[str, Any]:
        """The frame as plain objects, for the slow path."""
        try:
            loaded = json.loads(frame.decode(), parse_constant=_refuse_constant)
        except ValueError:  # not UTF-8, not JSON, or a whole number of thousands of digits
            raise self._violation("a frame that is not JSON") from None
        if not isinstance(loaded, dict):
            raise self._violation("a frame that is not a JSON object")
        return loaded

    def _read_leniently(self, loaded: dict[str, Any]) -> _Frame:
        """Read a frame of which a member has another type than documented, and put that right in ``loaded``."""
        try:
            normalise(loaded)
            return msgspec.convert(loaded, _Frame)
        except (WrongTypeError, msgspec.ValidationError):
            raise self._violation("a frame that does not fit the protocol") from None

    def _violation(self, detail: str) -> UpstreamNonsense:
        return UpstreamNonsense(f"Spark sent {detail}", sid=self.sid)


def _are_single_lines(frames: Collection[bytes]) -> bool:
    """Whether every frame is UTF-8 in a single line; asked of all at once, which costs little more than of one."""
    joined = b" ".join(frames)  # the spaces keep halves of a character apart
    if b"\n" in joined or b"\r" in joined:
        return False
    if not joined.isascii():
        try:
            joined.decode()  # msgspec does not look into the strings that it skips
        except UnicodeDecodeError:
            return False
    return True


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
