"""One conversation with the Spark websocket: a question goes out in one frame, the answer comes back in many.

The module knows both ends. `build_request` and `SparkAnswer` are the caller's; `parse_question`, `render` and
`error_frame` are the platform's, for the sandbox and for doors that speak Spark. Nothing here touches a socket or a
clock.

The frames of an answer are not only read: a client of the original AiProject interface is shown them as they are. That
client reads the body in pieces of 2048 bytes and decodes each alone, so a longer frame must be pure ASCII, or a
character cut in two ends the program; and it loses the rest of an answer on a frame without text. `SparkAnswer` hands
each frame through untouched when it is fit for such a client, and mends it only when it is not.

Sources: iFlytek, 《星火认知大模型 Web API 文档》, 《星火认知大模型服务说明》, 《星火X1 websocket 协议文档》,
《精调服务 WebSocket 协议》; error codes in `aiproject.protocols.iflytek.error_codes`.
"""

from __future__ import annotations

import json
import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from aiproject.errors import InvalidInput, UpstreamFailed, UpstreamNonsense, UpstreamTruncated
from aiproject.protocols.chat import ChatEvent, ChatMessage, ChatRequest, Role, ToolCall, Usage
from aiproject.protocols.iflytek.error_codes import Service, quotable, refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "MAX_ANSWER_BYTES",
    "MAX_CLIENT_FRAME",
    "MAX_FRAMES",
    "MAX_FRAME_BYTES",
    "MAX_TOKENS_REPORTED",
    "SparkAnswer",
    "SparkQuestion",
    "SparkRequestError",
    "build_request",
    "completion_limit",
    "context_limit",
    "error_frame",
    "estimate_tokens",
    "known_domains",
    "parse_question",
    "parse_request",
    "render",
    "sendable_messages",
    "takes_system_role",
    "with_usage",
]

MAX_FRAME_BYTES: Final = 1024 * 1024
"""One frame of an answer. Real ones have 200 to 500 bytes; search sources have some kilobytes."""

MAX_FRAMES: Final = 100_000
"""Frames of one answer. The longest completion of any model is 65535 tokens, and a frame brings at least one."""

MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""Text, thinking and call arguments of one answer in UTF-8; 65535 tokens are well under 1 MiB."""

MAX_TOKENS_REPORTED: Final = 10_000_000
"""What one call can be said to consume; the largest context is 131072 tokens."""

MAX_CLIENT_FRAME: Final = 2048
"""Bytes of a frame up to which it may hold other characters than ASCII; see the module's docstring."""

_MAX_UID: Final = 32  # characters, 《星火认知大模型 Web API 文档》
_MAX_SID: Final = 64
_MAX_CODE: Final = 999_999_999  # the documents' codes have five digits, and six in one place
_ROLES: Final[tuple[Role, ...]] = ("system", "user", "assistant")
_STATUS_FIRST, _STATUS_MIDDLE, _STATUS_LAST = 0, 1, 2
_LF, _CR = b"\n\r"


# -- what the models take ----------------------------------------------------------------------------------------------


class _Model(NamedTuple):
    """The limits of one ``domain``, in tokens."""

    context: int = 8192
    completion: int = 4096
    takes_system_role: bool = True
    max_temperature: float = 1.0


# A domain that is not here is a newer model or a fine-tuned one: it gets the documents' smallest limits.
_UNLISTED_MODEL: Final = _Model()
_MODELS: Final[Mapping[str, _Model]] = MappingProxyType(
    {
        "lite": _Model(takes_system_role=False),
        "general": _Model(takes_system_role=False),
        "generalv2": _Model(takes_system_role=False),
        "generalv3": _Model(completion=8192),
        "pro-128k": _Model(context=128 * 1024),
        "generalv3.5": _Model(completion=8192),
        "max-32k": _Model(context=32 * 1024, completion=8192),
        "4.0Ultra": _Model(completion=8192),
        "x1": _Model(context=32 * 1024, completion=32768, max_temperature=2.0),
        "spark-x": _Model(context=64 * 1024, completion=65535, max_temperature=2.0),
        "kjwx": _Model(takes_system_role=False),
        "multilang": _Model(takes_system_role=False),
    }
)

_DOMAINS_OF_PATH: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "/v1.1/chat": ("lite", "general"),
        "/v2.1/chat": ("generalv2",),
        "/v3.1/chat": ("generalv3",),
        "/chat/pro-128k": ("pro-128k",),
        "/v3.5/chat": ("generalv3.5",),
        "/chat/max-32k": ("max-32k",),
        "/v4.0/chat": ("4.0Ultra",),
        "/v1/x1": ("x1", "spark-x"),
        "/x2": ("spark-x",),
        "/v1.1/chat_kjwx": ("kjwx",),
        "/v1.1/chat_multilang": ("multilang",),
    }
)


def known_domains(url: str) -> tuple[str, ...] | None:
    """The values of ``parameter.chat.domain`` that fit a Spark URL; ``None`` where the documents do not tell.

    Only the path decides, so that a stand-in platform on another host is judged alike, with one exception: the hosts of
    fine-tuned models (``maas-api…``) share a path with Lite and take the value that the console prints for the model.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return None
    return None if host.startswith("maas-api") else _DOMAINS_OF_PATH.get(parts.path)


def context_limit(domain: str) -> int:
    """Tokens of all messages together; over it the platform refuses with 10907. 8192 for a domain not listed."""
    return _MODELS.get(domain, _UNLISTED_MODEL).context


def completion_limit(domain: str) -> int:
    """The largest ``max_tokens`` of a model; 4096 for a domain not listed."""
    return _MODELS.get(domain, _UNLISTED_MODEL).completion


def takes_system_role(domain: str) -> bool:
    """Whether a model accepts a message of role ``system``; taken for granted for a domain not listed."""
    return _MODELS.get(domain, _UNLISTED_MODEL).takes_system_role


_WIDE = 8
"""Twelfths of a token that a character beyond ASCII counts: 1.5 Chinese characters are a token."""

_RARER = {
    # Twelfths of a token, and the blocks of 256 UTF-16 code units (first and last high byte) that count so many. What a
    # vocabulary does not have falls apart into its bytes, up to four of them.
    12: (
        (0x01, 0x03),  # Latin with rare marks, combining marks, Greek
        (0xAC, 0xDF),  # Hangul; halves of a pair: emoji and the rarest Chinese characters count two tokens
    ),
    15: ((0x08, 0x1F),),  # from Devanagari and Thai to Ethiopic and Mongolian
    18: ((0x20, 0x2F), (0x31, 0x33)),  # punctuation, symbols, what has no width
    24: ((0xA0, 0xAB), (0xF9, 0xFE)),  # Yi, forms kept for compatibility
    30: ((0x34, 0x4D),),  # rare Chinese characters: Extension A
    36: ((0xE0, 0xF8),),  # private use
}


def _blocks(ranges: Iterable[tuple[int, int]]) -> bytes:
    return b"".join(bytes(range(first, last + 1)) for first, last in ranges)


def _all_but(kept: bytes) -> bytes:
    """Return what `bytes.translate` deletes so that these bytes are left, which counts them in a nanosecond each."""
    return bytes(set(range(256)) - set(kept))


_NOT_RARER = _all_but(_blocks(one for ranges in _RARER.values() for one in ranges))
_EXTRA = tuple((twelfths - _WIDE, _all_but(_blocks(ranges))) for twelfths, ranges in _RARER.items())

_LETTERS = b"abcdefghijklmnopqrstuvwxyz \t\n\r"
_NOT_SINGLE = _all_but(bytes({*b"0123456789", *range(32), 127} - set(_LETTERS)))


def estimate_tokens(text: str) -> int:
    """About how many tokens a text has, rather too many than too few; 0 for an empty one.

    The platform's rule of thumb: a token is about 1.5 Chinese characters or 0.8 English words. That is true of prose.
    What is no prose (code, figures, Base64, white space, rare characters) has more tokens than words, up to three a
    character, so that characters count as well:

    - in ASCII, a figure or a control character is a token, other marks and capitals half of one, small letters and
      white space a quarter, unless the words come to more;
    - beyond ASCII, a character counts by its block, two thirds of a token in the common ones.

    Source: 《星火认知大模型 Web API 文档》, notes on ``max_tokens``. The rest was measured with the public vocabulary
    of another Chinese model (Qwen): of fifty kinds of text, among them random characters of each block, none has more
    than two and a half times as many tokens as estimated; the estimate of Chinese and English prose is within a fifth.
    """
    ascii_text = text.encode("ascii", "ignore")
    # In twelfths of a token, so that rounding up is exact: a word counts 15, a character at least 3.
    twelfths = _twelfths_beyond_ascii(text, len(ascii_text)) if len(ascii_text) < len(text) else 0
    if ascii_text:
        marks = ascii_text.translate(None, _LETTERS)
        characters = 3 * len(ascii_text)
        if marks:
            characters += 3 * len(marks) + 6 * len(marks.translate(None, _NOT_SINGLE))
        twelfths += max(15 * len(ascii_text.split()), characters)
    return -(-twelfths // 12)


def _twelfths_beyond_ascii(text: str, ascii_count: int) -> int:
    blocks = text.encode("utf-16-be", "surrogatepass")[::2]  # the high byte of each code unit
    twelfths = _WIDE * (len(blocks) - ascii_count)
    if rarer := blocks.translate(None, _NOT_RARER):
        twelfths += sum(extra * len(rarer.translate(None, others)) for extra, others in _EXTRA)
    return twelfths


# -- the question, as the caller makes it ------------------------------------------------------------------------------


def sendable_messages(messages: Iterable[ChatMessage], *, domain: str) -> tuple[ChatMessage, ...]:
    """Turn a dialog into one that the platform takes: system only first, then user and assistant in turn, user last.

    What is harmless is repaired:

    - messages without a visible character are dropped (the existing desktop app sends an empty system message; what
      the platform does with one is not documented);
    - system messages are joined and put first, wherever they stood; for a model without a system role they become the
      beginning of the first user message;
    - neighbours of the same role are joined with a newline;
    - assistant messages before the first user message are dropped: they answer a question that was cut off with the
      older history, or are a greeting that the app itself made, and the platform accepts neither.

    Raises:
        InvalidInput: nothing of the user's is left, or the last word is not the user's.
    """
    system: list[str] = []
    turns: list[tuple[Role, list[str]]] = []
    for message in messages:
        if not message.content.strip():
            continue
        if message.role == "system":
            system.append(message.content)
        elif turns and turns[-1][0] == message.role:
            turns[-1][1].append(message.content)
        elif turns or message.role == "user":
            turns.append((message.role, [message.content]))
    if not turns:
        raise InvalidInput("对话中没有用户的提问")
    if turns[-1][0] != "user":
        raise InvalidInput("对话的最后一条须是用户的提问")
    if system and not takes_system_role(domain):
        turns[0][1][:0] = system
        system = []
    dialog = [ChatMessage(role, "\n".join(contents)) for role, contents in turns]
    if system:
        dialog.insert(0, ChatMessage("system", "\n".join(system)))
    return tuple(dialog)


def build_request(request: ChatRequest, *, app_id: str, domain: str, uid: str | None = None) -> bytes:
    """The one frame that asks: compact JSON in UTF-8.

    Parameters are brought into the ranges that the platform takes, since out of them it answers with an error.

    Args:
        request: its messages go through `sendable_messages`.
        app_id: the application that the API key belongs to.
        domain: the model; must fit the URL, see `known_domains`.
        uid: an end user's id at the platform, at most 32 characters; must not be a credential.

    Raises:
        InvalidInput: the dialog cannot be sent, or a number is none.
        ValueError: ``uid`` is too long.
    """
    if uid is not None and len(uid) > _MAX_UID:
        raise ValueError(f"uid has at most {_MAX_UID} characters")
    if not math.isfinite(request.temperature):
        raise InvalidInput("temperature 须是数字")
    highest = _MODELS.get(domain, _UNLISTED_MODEL).max_temperature
    header = {"app_id": app_id}
    if uid:
        header["uid"] = uid
    body = {
        "header": header,
        "parameter": {
            "chat": {
                "domain": domain,
                # The range excludes 0, which callers use for "as steady as can be".
                "temperature": min(max(request.temperature, 0.01), highest),
                "max_tokens": min(max(request.max_tokens, 1), completion_limit(domain)),
                "top_k": min(max(request.top_k, 1), 6),
                "auditing": "default",
            }
        },
        "payload": {"message": {"text": sendable_messages(request.messages, domain=domain)}},
    }
    try:
        return _encode(body)
    except UnicodeEncodeError as error:  # half of a surrogate pair, which JSON can carry and UTF-8 cannot
        raise InvalidInput("对话中含有无法编码的字符") from error


# -- the answer, as the caller reads it --------------------------------------------------------------------------------

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
_encode = msgspec.json.Encoder().encode


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

    def receive_all(self, frames: Iterable[bytes], events: list[ChatEvent]) -> None:
        """Read the next frames, each as `receive` does; what follows the last frame of the answer is not looked at.

        Args:
            events: takes what they say, also of those before a frame that is refused.

        Raises:
            UpstreamFailed: as `receive`.
        """
        if self._closed:
            raise UpstreamNonsense("a frame came after the last one", sid=self.sid)
        for frame in frames:
            if (
                self.sid is not None
                and len(frame) <= MAX_CLIENT_FRAME
                and self.frames < MAX_FRAMES
                and _LF not in frame
                and _CR not in frame
            ):
                # Nearly every frame passes here, in half of the time; `receive` would say the same of it.
                text = _plain_text(frame)
                if text is not None:
                    self.frames += 1
                    self._grow(text)
                    events.append(ChatEvent(text, "", None, None, False, frame))
                    continue
            events.append(self.receive(frame))
            if self.finished:
                return

    def receive(self, frame: bytes) -> ChatEvent:
        """Read the next frame.

        An event's ``spark_frame`` is the very object ``frame`` wherever that is fit for a client of the original
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
            raise self._nonsense(f"a frame of {len(frame)} bytes")
        if self.frames > MAX_FRAMES:
            raise self._nonsense(f"an answer of more than {MAX_FRAMES} frames")
        is_ascii = frame.isascii()
        mended: dict[str, Any] | None = None
        try:
            if not is_ascii:
                frame.decode()  # msgspec does not look into the strings that it skips
            message = _decode_frame(frame)
        except UnicodeDecodeError:
            raise self._nonsense("a frame that is not UTF-8") from None
        except msgspec.DecodeError:
            mended = self._load(frame)
            message = self._read_leniently(mended)

        header = message.header
        if self.sid is None and header.sid:
            self.sid = quotable(header.sid, _MAX_SID) or None
        if header.code != 0:
            if abs(header.code) > _MAX_CODE:
                raise self._nonsense("an absurd error code")
            raise refusal(Service.SPARK, header.code, header.message, self.sid)

        payload = message.payload
        choices = payload.choices if payload is not None else None
        is_fit = mended is None and message.code is msgspec.UNSET
        status = header.status
        if status is None:
            is_fit = False
            status = choices.status if choices is not None else None
            if status is None:
                status = _STATUS_FIRST if self.frames == 1 else _STATUS_MIDDLE
        if not _STATUS_FIRST <= status <= _STATUS_LAST:
            raise self._nonsense(f"a frame of status {quotable(str(status), 20)}")
        event = ChatEvent(is_last=status == _STATUS_LAST)

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
                if call is not None and event.tool_call is None:
                    event.tool_call = ToolCall(call.name, call.arguments)
        self._grow(event.text)
        if event.reasoning:
            self._grow(event.reasoning)
        if event.tool_call is not None:
            self._grow(event.tool_call.name + event.tool_call.arguments)

        if event.is_last:
            is_fit = is_fit and has_text
            if payload is not None and payload.usage is not None and payload.usage.text is not None:
                event.usage, may_stay = self._read_usage(payload.usage.text)
                is_fit = is_fit and may_stay
        elif not has_text:
            return event
        if is_fit and (is_ascii or len(frame) <= MAX_CLIENT_FRAME) and b"\n" not in frame and b"\r" not in frame:
            event.spark_frame = frame
        else:
            if mended is None:
                mended = self._load(frame)
            try:
                event.spark_frame = _mend(mended, status=status, seq=self.frames - 1, usage=event.usage)
            except ValueError:  # a number beyond the range of JSON's readers
                raise self._nonsense("a frame with an impossible number") from None
        if event.is_last:
            self.usage = event.usage
            self.finished = self._closed = True
        return event

    def _grow(self, text: str) -> None:
        """Count what the answer has grown by, and stop one without end."""
        self._size += len(text) if text.isascii() else len(text.encode())
        if self._size > MAX_ANSWER_BYTES:
            self._closed = True
            raise self._nonsense(f"an answer of more than {MAX_ANSWER_BYTES} bytes")

    def _read_usage(self, given: _UsageText) -> tuple[Usage | None, bool]:
        """Read the numbers; also say whether the frame may stay as it is, with respect to them.

        A number that lacks is worked out from the others; ``(None, True)`` if that cannot be done. ``total_tokens`` is
        what the platform bills, so it may be more than its parts (hidden tokens of a search); where it is less, the
        parts prove more to be consumed, and the total is raised to their sum, in the client's frame as well, so that
        what is charged is what the client reads.
        """
        prompt, completion, total = given.prompt_tokens, given.completion_tokens, given.total_tokens
        for number in (prompt, completion, total, given.question_tokens):
            if number is not None and not 0 <= number <= MAX_TOKENS_REPORTED:
                raise self._nonsense("absurd numbers of tokens")
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
        usage = Usage(prompt, completion, billed, given.question_tokens or 0)
        is_complete = None not in (given.prompt_tokens, given.completion_tokens, given.question_tokens)
        return usage, is_complete and billed == total

    def _load(self, frame: bytes) -> dict[str, Any]:
        """The frame as plain objects, for the slow path."""
        try:
            loaded = json.loads(frame.decode(), parse_constant=_refuse_constant)
        except ValueError:  # not UTF-8, not JSON, or a whole number of thousands of digits
            raise self._nonsense("a frame that is not JSON") from None
        if not isinstance(loaded, dict):
            raise self._nonsense("a frame that is not a JSON object")
        return loaded

    def _read_leniently(self, loaded: dict[str, Any]) -> _Frame:
        """Read a frame of which a member has another type than documented, and put that right in ``loaded``."""
        try:
            _normalise(loaded)
            return msgspec.convert(loaded, _Frame)
        except (_WrongTypeError, msgspec.ValidationError):
            raise self._nonsense("a frame that does not fit the protocol") from None

    def _nonsense(self, detail: str) -> UpstreamNonsense:
        return UpstreamNonsense(f"Spark sent {detail}", sid=self.sid)


def _plain_text(frame: bytes) -> str | None:
    """The piece of the answer in a frame as documented; ``None``: it is none, to be looked at with care."""
    try:
        text = _decode_plain_frame(frame).payload.choices.text[0].content
        if not frame.isascii():
            frame.decode()  # msgspec does not look into the strings that it skips
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return text


class _WrongTypeError(Exception):
    """A member's type cannot be put right."""


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _integer(value: object) -> int | None:
    """A whole number out of what a careless serializer made of it: ``"0"`` or ``0.0``."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and len(value) <= 20 and value.isascii() and value.isdigit():
        return int(value)
    raise _WrongTypeError


def _member(parent: dict[str, Any], name: str) -> dict[str, Any] | None:
    value = parent.get(name)
    if value is not None and not isinstance(value, dict):
        raise _WrongTypeError
    return value


def _without_lone_surrogates(text: str) -> str:
    """Halves of surrogate pairs become U+FFFD; nothing downstream could encode them."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _normalise(loaded: dict[str, Any]) -> None:
    """Put right what is harmless, in place: numbers in strings, null or odd labels, half characters.

    The error code is looked at before the payload, which an error frame need not have in any known form.
    """
    header = _member(loaded, "header")
    if header is None:
        raise _WrongTypeError
    header["code"] = _integer(header.get("code"))
    header["status"] = _integer(header.get("status"))
    for label in ("sid", "message"):
        if not isinstance(header.get(label), str):
            header[label] = ""
    if header["code"] != 0:
        loaded["payload"] = None
        return
    payload = _member(loaded, "payload")
    if payload is None:
        return
    choices = _member(payload, "choices")
    if choices is not None:
        choices["status"] = _integer(choices.get("status"))
        choices["seq"] = _integer(choices.get("seq"))
        elements = choices.get("text")
        if isinstance(elements, list):
            choices["text"] = [element for element in elements if element is not None]
            for element in choices["text"]:
                _normalise_element(element)
    usage = _member(payload, "usage")
    numbers = _member(usage, "text") if usage is not None else None
    if numbers is not None:
        for name in _UsageText.__struct_fields__:
            numbers[name] = _integer(numbers.get(name))


def _normalise_element(element: object) -> None:
    if not isinstance(element, dict):
        raise _WrongTypeError
    if not isinstance(element.get("role"), str):
        element["role"] = "assistant"
    call = _member(element, "function_call")
    if call is not None and isinstance(call.get("arguments"), dict):  # as an object, where the document has a string
        call["arguments"] = json.dumps(call["arguments"], ensure_ascii=False)
    for holder in (element, call or {}):
        for name in ("content", "reasoning_content", "name", "arguments"):
            if isinstance(holder.get(name), str):
                holder[name] = _without_lone_surrogates(holder[name])


def _mend(loaded: dict[str, Any], *, status: int, seq: int, usage: Usage | None) -> bytes:
    """Make a frame that a client of the original interface can read; ``loaded`` is changed.

    ASCII always: such a frame may have any length.
    """
    loaded.pop("code", None)
    loaded["header"]["status"] = status
    payload = loaded["payload"] = loaded.get("payload") or {}
    choices = payload["choices"] = payload.get("choices") or {}
    elements = [element for element in choices.get("text") or () if element.get("role") != "tool"]
    for element in elements:
        if element.get("content") is None:
            element["content"] = ""
    if not elements:
        payload.pop("plugins", None)
        elements = [{"content": "", "role": "assistant", "index": 0}]
    choices["text"] = elements
    if choices.get("status") is None:
        choices["status"] = status
    if choices.get("seq") is None:
        choices["seq"] = seq
    if usage is not None:
        payload["usage"]["text"].update(_usage_members(usage))
    return _ascii_json(loaded)


# -- frames of our own making ------------------------------------------------------------------------------------------


def _ascii_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def _usage_members(usage: Usage) -> dict[str, int]:
    return {
        "question_tokens": usage.question_tokens,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def render(event: ChatEvent, *, sid: str, seq: int, first: bool) -> bytes:
    """An event as a frame of Spark's: for events of other upstreams, and for the sandbox.

    Compact UTF-8 up to `MAX_CLIENT_FRAME` bytes, ASCII beyond. An event that is first and last at once makes the single
    frame of a short answer, with status 2.

    Args:
        sid: the session id, the same for all frames of an answer.
        seq: counts the frames of an answer from 0.
        first: this is the answer's first frame.
    """
    status = _STATUS_LAST if event.is_last else _STATUS_FIRST if first else _STATUS_MIDDLE
    element: dict[str, Any] = {"content": event.text, "role": "assistant", "index": 0}
    if event.reasoning:
        element["reasoning_content"] = event.reasoning
    if event.tool_call is not None:
        element["content_type"] = "text"
        element["function_call"] = {"arguments": event.tool_call.arguments, "name": event.tool_call.name}
    payload: dict[str, Any] = {"choices": {"status": status, "seq": seq, "text": [element]}}
    if event.usage is not None:
        payload["usage"] = {"text": _usage_members(event.usage)}
    body = {"header": {"code": 0, "message": "Success", "sid": sid, "status": status}, "payload": payload}
    try:
        frame = _encode(body)
    except UnicodeEncodeError:
        return _ascii_json(body)
    return frame if len(frame) <= MAX_CLIENT_FRAME or frame.isascii() else _ascii_json(body)


def with_usage(frame: bytes, usage: Usage) -> bytes:
    """A last frame with other usage numbers: for one that told none, once it is decided what is charged.

    Args:
        frame: a ``spark_frame`` that `SparkAnswer` gave out.
    """
    loaded = json.loads(frame)
    loaded["payload"]["usage"] = {"text": _usage_members(usage)}
    return _ascii_json(loaded)


def error_frame(*, code: int, message: str, sid: str | None) -> bytes:
    """An error in Spark's own shape: no payload, status 2, ASCII.

    Args:
        code: not 0.
        message: shown to the person at the app.

    Raises:
        ValueError: ``code`` is 0, which would be a success.
    """
    if code == 0:
        raise ValueError("0 is not an error code")
    return _ascii_json({"header": {"code": code, "message": message, "sid": sid or "", "status": _STATUS_LAST}})


# -- the question, as the platform reads it ----------------------------------------------------------------------------


class SparkRequestError(Exception):
    """The platform's refusal of a question; goes out as an `error_frame`.

    Attributes:
        code: one of the platform's codes.
        message: in the platform's manner, in English.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code = code
        self.message = message


class SparkQuestion(msgspec.Struct, frozen=True):
    """A question that the platform accepts.

    Attributes:
        request: the dialog and its parameters, with the platform's defaults filled in.
        domain: the model asked.
        uid: the caller's end user.
    """

    request: ChatRequest
    domain: str
    uid: str | None = None


class _AskedHeader(msgspec.Struct):
    app_id: str
    uid: str | None = None


class _AskedChat(msgspec.Struct):
    domain: str
    temperature: float | None = None
    max_tokens: int | None = None
    top_k: int | None = None


class _AskedParameter(msgspec.Struct):
    chat: _AskedChat


class _AskedText(msgspec.Struct):
    role: str
    content: str


class _AskedMessage(msgspec.Struct):
    text: list[_AskedText]


class _AskedPayload(msgspec.Struct):
    message: _AskedMessage


class _Asked(msgspec.Struct):
    header: _AskedHeader
    parameter: _AskedParameter
    payload: _AskedPayload


def parse_request(frame: bytes, *, app_id: str, path: str) -> ChatRequest:
    """`parse_question`, for those who need the dialog only."""
    return parse_question(frame, app_id=app_id, path=path).request


def parse_question(frame: bytes, *, app_id: str, path: str) -> SparkQuestion:
    """Read a question as strictly as the platform does; members it does not know are ignored.

    Where the documents leave the code open, this takes 10005 for a value out of its range, 10163 for a missing member
    or a wrong type, and 10004 for a dialog against the role rules, empty messages included.

    Args:
        app_id: the application that the connection's API key belongs to.
        path: the path of the connection's URL, which decides the model.

    Raises:
        SparkRequestError: 10003 not JSON, or a domain that is not the path's; 10313 application id; 10163, 10005, 10004
            as above; 10907 too many tokens by `estimate_tokens`.
    """
    try:
        loaded = msgspec.json.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise SparkRequestError(10003, "ClientMsgError: the message is not valid JSON") from None
    header = loaded.get("header") if isinstance(loaded, dict) else None
    given_app_id = header.get("app_id") if isinstance(header, dict) else None
    if not given_app_id:
        raise SparkRequestError(10313, "appid cannot be empty")
    if given_app_id != app_id:
        raise SparkRequestError(10313, "app_id and api_key does not match")
    try:
        asked = msgspec.convert(loaded, _Asked)
    except msgspec.ValidationError as error:  # its text names the member and the types, never the value
        raise SparkRequestError(10163, f"param validate error: {error}") from None
    chat = asked.parameter.chat
    if chat.domain not in _DOMAINS_OF_PATH.get(path, ()):
        raise SparkRequestError(10003, "ClientMsgError: invalid model domain")
    dialog = asked.payload.message.text
    request = _checked_request(chat, dialog)
    if len(asked.header.uid or "") > _MAX_UID:
        raise SparkRequestError(10005, f"param validate error: uid has more than {_MAX_UID} characters")
    if sum(estimate_tokens(text.content) for text in dialog) > context_limit(chat.domain):
        raise SparkRequestError(10907, "the dialog is over the token limit of the model")
    return SparkQuestion(request, chat.domain, asked.header.uid)


def _checked_request(chat: _AskedChat, dialog: list[_AskedText]) -> ChatRequest:
    """Check ranges and roles and fill in the platform's defaults."""
    highest = _MODELS.get(chat.domain, _UNLISTED_MODEL).max_temperature
    limit = completion_limit(chat.domain)
    is_reasoning = highest > 1.0
    temperature = chat.temperature if chat.temperature is not None else 1.2 if is_reasoning else 0.5
    max_tokens = chat.max_tokens if chat.max_tokens is not None else limit if is_reasoning else 4096
    top_k = chat.top_k if chat.top_k is not None else 4
    if not 0.0 < temperature <= highest:
        raise SparkRequestError(10005, f"param validate error: temperature must be in (0, {highest:g}]")
    if not 1 <= max_tokens <= limit:
        raise SparkRequestError(10005, f"param validate error: max_tokens must be in [1, {limit}]")
    if not 1 <= top_k <= 6:
        raise SparkRequestError(10005, "param validate error: top_k must be in [1, 6]")
    messages: list[ChatMessage] = []
    for text in dialog:
        role = next((known for known in _ROLES if known == text.role), None)
        if role is None:
            raise SparkRequestError(10004, "schema error: unknown role")
        if not text.content:
            raise SparkRequestError(10004, "schema error: empty content")
        messages.append(ChatMessage(role, text.content))
    has_system = bool(messages) and messages[0].role == "system"
    if has_system and not takes_system_role(chat.domain):
        raise SparkRequestError(10004, "schema error: this model takes no system role")
    turns = [message.role for message in messages[has_system:]]
    # User and assistant in turn, user first and last: an odd number, "user" at the even places.
    if len(turns) % 2 == 0 or any(role != ("user", "assistant")[place % 2] for place, role in enumerate(turns)):
        raise SparkRequestError(10004, "schema error: user and assistant must alternate and the last must be user")
    return ChatRequest(tuple(messages), max_tokens, temperature, top_k)
