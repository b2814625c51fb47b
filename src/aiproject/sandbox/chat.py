"""Chat and image understanding in the sandbox: each question becomes a script of frames, which is then performed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from aiohttp import WSMsgType, web

from aiproject.protocols.chat import ChatEvent, ToolCallDelta, Usage
from aiproject.protocols.iflytek.spark.estimate import estimate_tokens
from aiproject.protocols.iflytek.spark.frames import error_frame, render
from aiproject.protocols.iflytek.spark.server import SparkRequestError, parse_question
from aiproject.sandbox.answers import (
    cut_to_tokens,
    describe_picture,
    is_chinese,
    make_answer,
    make_reasoning,
    split_frames,
)
from aiproject.sandbox.counters import Call, Calls
from aiproject.sandbox.faults import Fault, FaultRegistry, strip_fault_markers
from aiproject.sandbox.images import parse_image_question
from aiproject.sandbox.wire import ERROR_CLOSE_DELAY, close_with, new_sid, reset_connection, send_frame

__all__ = [
    "ChatCall",
    "Close",
    "Fail",
    "Question",
    "Reset",
    "Script",
    "Send",
    "Stall",
    "read_image_question",
    "read_question",
]

REASONING_PATHS: Final = ("/v1/x1", "/x2")
"""Paths whose models stream ``reasoning_content`` before ``content``."""

_EMOJI: Final = "[sandbox] 👩‍👩‍👧‍👦 🎉 🇨🇳 👍🏽 汉字 𠮷野家 ｱｲｳ é e\u0301 Ω ∑ 🧑🏿‍🚀。"


@dataclass(frozen=True)
class Question:
    """An accepted question of either service.

    Attributes:
        prompt: the last user message, fault markers included.
        roles: the roles of all messages.
        prompt_tokens: an estimate, history included.
        max_tokens: the limit of the answer, in tokens.
        answer: the complete canned answer.
        has_reasoning: whether the model streams reasoning first.
        shows_sources: whether the request asks web search to return its sources.
        recorded: the parameters for `Calls.note`.
    """

    prompt: str
    roles: tuple[str, ...]
    prompt_tokens: int
    max_tokens: int
    answer: str
    has_reasoning: bool = False
    shows_sources: bool = False
    recorded: dict[str, Any] = field(default_factory=dict)


def read_question(frame: bytes, *, app_id: str, path: str) -> Question:
    """Parse a chat question. Raises `SparkRequestError` as `parse_question` does."""
    parsed = parse_question(frame, app_id=app_id, path=path)
    request = parsed.request
    prompt = request.messages[-1].text
    roles = tuple(message.role for message in request.messages)
    options = msgspec.json.decode(frame)["parameter"]["chat"]
    thinking = options.get("thinking")
    is_thinking_off = isinstance(thinking, dict) and thinking.get("type") == "disabled"
    return Question(
        prompt,
        roles,
        sum(estimate_tokens(message.text) for message in request.messages),
        request.max_tokens,
        make_answer(strip_fault_markers(prompt), turn=roles.count("user")),
        has_reasoning=path in REASONING_PATHS and not is_thinking_off,
        shows_sources=_shows_sources(options.get("tools")),
        recorded={
            "path": path,
            "domain": parsed.domain,
            "messages": len(roles),
            "roles": roles,
            "contents": [message.content for message in request.messages],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_k": request.top_k,
            "has_uid": parsed.uid is not None,
        },
    )


def read_image_question(frame: bytes, *, app_id: str) -> Question:
    """Parse a question about a picture. Raises `SparkRequestError` as `parse_image_question` does."""
    parsed = parse_image_question(frame, app_id=app_id)
    return Question(
        parsed.prompt,
        parsed.roles,
        parsed.prompt_tokens,
        parsed.max_tokens,
        describe_picture(parsed.image, parsed.kind, parsed.size, strip_fault_markers(parsed.prompt)),
        recorded={
            "domain": parsed.domain,
            "messages": len(parsed.roles),
            "roles": parsed.roles,
            "max_tokens": parsed.max_tokens,
            "image_bytes": len(parsed.image),
            "image_size": list(parsed.size),
        },
    )


def _shows_sources(tools: object) -> bool:
    for tool in tools if isinstance(tools, list) else ():
        search = tool.get("web_search") if isinstance(tool, dict) else None
        if isinstance(search, dict) and search.get("enable", True) is True and search.get("show_ref_label") is True:
            return True
    return False


# -- the script --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Send:
    """Send a frame."""

    frame: bytes
    is_binary: bool = False


@dataclass(frozen=True)
class Stall:
    """Send nothing for this many seconds."""

    seconds: float


@dataclass(frozen=True)
class Reset:
    """Reset the connection."""


@dataclass(frozen=True)
class Close:
    """Close the connection without a last frame."""

    code: int


@dataclass(frozen=True)
class Fail:
    """Send an error frame and close the connection."""

    code: int
    message: str


Step = Send | Stall | Reset | Close | Fail


@dataclass(frozen=True)
class Script:
    """The steps of an answer on the wire, in order.

    Attributes:
        steps: the answer is complete after the last of them, unless one of them ends the connection.
        gap: seconds between frames, if a fault sets it.
        closes: whether the sandbox closes after the last frame, if a fault sets it.
    """

    steps: tuple[Step, ...]
    gap: float | None = None
    closes: bool | None = None


def write_script(question: Question, faults: Sequence[Fault], *, sid: str) -> Script:
    """Return the script of an answer. It is deterministic: the same arguments give the same script."""
    # Reversed, so that the first of two faults of a kind wins.
    active = {fault.kind: fault for fault in reversed(faults)}
    events = _events(question, active)
    frames = [render(event, sid=sid, seq=seq, first=seq == 0) for seq, event in enumerate(events)]
    if "wide" in active:
        frames = [_as_utf8(frame) for frame in frames]
    if usage := active.get("usage"):
        frames[-1] = _corrupt_usage(frames[-1], usage.text("value"))
    steps: list[Step] = [Send(frame) for frame in frames]
    if "null" in active:
        steps.insert(1 if len(steps) > 1 else 0, Send(_null_frame(sid, is_first=len(steps) == 1)))
    if question.shows_sources or "plugins" in active:
        steps.insert(0, Send(_plugins_frame(sid)))
    slow = active.get("slow")
    return Script(
        tuple(_apply_faults(steps, active, sid)),
        gap=slow.number("seconds") if slow else None,
        closes=False if "no_close" in active else None,
    )


def _events(question: Question, active: dict[str, Fault]) -> list[ChatEvent]:
    prompt_tokens = max(1, question.prompt_tokens)
    question_tokens = max(1, estimate_tokens(question.prompt))
    if call := active.get("function_call"):
        return [
            ChatEvent(
                tool_calls=(ToolCallDelta(0, call.text("name"), call.text("arguments")),),
                usage=Usage(prompt_tokens, 0, prompt_tokens, question_tokens),
                is_last=True,
            )
        ]
    reasoning = ""
    if question.has_reasoning or "reasoning" in active:
        reasoning = cut_to_tokens(
            make_reasoning(strip_fault_markers(question.prompt)), question.max_tokens // 2, estimate_tokens
        )
    text = _EMOJI if "emoji" in active else question.answer
    text = cut_to_tokens(text, max(1, question.max_tokens - estimate_tokens(reasoning)), estimate_tokens)
    deltas = split_frames(text, size=1 if "emoji" in active else 6)
    if frames := active.get("frames"):
        deltas = _spread(text, frames.whole("n"))
    if wide := active.get("wide"):
        size = wide.whole("bytes")
        deltas.insert(len(deltas) // 2, "宽" * (size // 3) if is_chinese(question.prompt) else "é" * (size // 2))
    if "single" in active:
        deltas = ["".join(deltas)]
    if "empty" in active:
        deltas = ["", *itertools.chain.from_iterable((delta, "") for delta in deltas)]
    deltas = deltas or [""]
    completion = estimate_tokens("".join(deltas)) + estimate_tokens(reasoning)
    usage = Usage(prompt_tokens, completion, prompt_tokens + completion, question_tokens)
    events = [ChatEvent(reasoning=delta) for delta in split_frames(reasoning)]
    events += [ChatEvent(text=delta) for delta in deltas[:-1]]
    events.append(ChatEvent(text=deltas[-1], usage=usage, is_last=True))
    return events


def _spread(text: str, frames: int) -> list[str]:
    """Split a text over exactly ``frames`` frames: repeated if it is too short, in longer pieces if it is too long."""
    if len(text) >= frames:
        cuts = [len(text) * i // frames for i in range(frames + 1)]
        return [text[a:b] for a, b in itertools.pairwise(cuts)]
    return list(itertools.islice(itertools.cycle(text or "x"), frames))


def _apply_faults(steps: list[Step], active: dict[str, Fault], sid: str) -> Iterable[Step]:
    """Apply the faults that do not depend on the answer's content; none comes after the last frame."""

    def position(fault: Fault, *, may_be_first: bool = False) -> int:
        if may_be_first and fault.text("at") == "first":
            return 0
        return min(fault.whole("after"), len(steps) - 1)

    head = {"code": 0, "message": "Success", "sid": sid, "status": 1}
    inserted: dict[str, Callable[[Fault], Step]] = {
        "not_json": lambda _: Send(b"<html>this is no JSON</html>"),
        "no_payload": lambda _: Send(msgspec.json.encode({"header": head})),
        "binary": lambda _: Send(b"\x00\xff\x00\xff", is_binary=True),
        "huge": lambda fault: Send(
            render(ChatEvent(text="x" * fault.whole("bytes")), sid=sid, seq=fault.whole("after"), first=False)
        ),
    }
    for kind, make in inserted.items():
        if fault := active.get(kind):
            steps.insert(position(fault), make(fault))
    if stall := active.get("stall"):
        steps.insert(position(stall, may_be_first=True), Stall(stall.number("seconds")))
    if error := active.get("error"):
        failure = Fail(error.whole("code"), error.text("message") or "ordered by a fault")
        return [*steps[: position(error, may_be_first=True)], failure]
    if truncate := active.get("truncate"):
        return [*steps[: position(truncate)], Close(truncate.whole("code"))]
    if reset := active.get("reset"):
        return [*steps[: position(reset)], Reset()]
    return steps


def _as_utf8(frame: bytes) -> bytes:
    """Return the frame in plain UTF-8, as the platform sends it, where `render` would escape."""
    return msgspec.json.encode(json.loads(frame))


def _corrupt_usage(frame: bytes, variant: str) -> bytes:
    loaded = json.loads(frame)
    numbers = loaded["payload"]["usage"]["text"]
    if variant == "missing":
        del loaded["payload"]["usage"]
    elif variant == "negative":
        numbers.update(dict.fromkeys(numbers, -7))
    elif variant == "absurd":
        numbers.update(dict.fromkeys(numbers, 10**18))
    elif variant == "text":
        numbers.update({name: str(value) for name, value in numbers.items()})
    else:  # "total": smaller than its parts
        numbers["total_tokens"] = 1
    return msgspec.json.encode(loaded)


def _null_frame(sid: str, *, is_first: bool) -> bytes:
    status = 0 if is_first else 1
    return msgspec.json.encode(
        {
            "header": {"code": 0, "message": "Success", "sid": sid, "status": status},
            "payload": {
                "choices": {"status": status, "seq": 1, "text": [{"content": None, "role": "assistant", "index": 0}]}
            },
        }
    )


def _plugins_frame(sid: str) -> bytes:
    """Return a frame with search sources, which has no ``choices``."""
    invoked = {"namespace": "ifly_search", "plugin_id": "ifly_search", "plugin_ver": "", "status_code": 200}
    source = {
        "name": "ifly_search",
        "content": '[{"index":1,"url":"https://example.com/sandbox","title":"sandbox"}]',
        "content_type": "text",
        "content_meta": None,
        "role": "tool",
        "status": "finished",
        "invoked": {**invoked, "status_msg": "Success", "type": "local"},
    }
    header = {"code": 0, "message": "Success", "sid": sid, "status": 1}
    return msgspec.json.encode({"header": header, "payload": {"plugins": {"text": [source]}}})


# -- the connection ----------------------------------------------------------------------------------------------------


class ChatCall:
    """One connection to a chat service, from the upgrade to the close.

    Args:
        read: parses the question; raises `SparkRequestError`.
        registry: the faults requested through the control API; faults in the prompt are found here.
        pause: seconds before the first frame, and between frames.
        closes: whether the sandbox closes after the last frame or waits for the client to close.
        request_timeout: seconds to wait for the question.
        linger: seconds to wait for the client's close.
    """

    def __init__(
        self,
        request: web.Request,
        ws: web.WebSocketResponse,
        read: Callable[[bytes], Question],
        *,
        service: str,
        registry: FaultRegistry,
        pause: tuple[float, float],
        closes: bool,
        request_timeout: float,
        linger: float,
    ) -> None:
        self._request = request
        self._ws = ws
        self._read = read
        self._service = service
        self._registry = registry
        self._first_pause, self._gap = pause
        self._closes = closes
        self._request_timeout = request_timeout
        self._linger = linger
        self._sid = new_sid("cht")

    async def run(self, calls: Calls, call: Call) -> None:
        """Serve the connection until it is closed."""
        try:
            message = await self._ws.receive(timeout=self._request_timeout)
        except TimeoutError:
            call.has_failed = True
            await close_with(self._ws, "server read msg timeout")
            return
        if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
            return
        try:
            if message.type is WSMsgType.BINARY:
                raise SparkRequestError(10003, "ClientMsgError: only text frames are accepted")
            question = self._read(message.data.encode())
        except SparkRequestError as refusal:
            with contextlib.suppress(ConnectionError):
                await self._fail(call, refusal.code, refusal.message)
            return
        calls.note(self._service, **question.recorded)
        faults = self._registry.take(self._service, "call") + self._registry.take_from_prompt(question.prompt)
        script = write_script(question, faults, sid=self._sid)
        player = asyncio.create_task(self._play(script, call))
        reader = asyncio.create_task(self._ws.receive())
        # Reading while the answer is sent detects a client that closes, or that asks a second question (10007).
        try:
            await asyncio.wait({player, reader}, return_when=asyncio.FIRST_COMPLETED)
            if not player.done() and reader.result().type in (WSMsgType.TEXT, WSMsgType.BINARY):
                player.cancel()
                await self._fail(call, 10007, "the previous question is still being answered")
            elif player.done() and player.exception() is None and not self._ws.closed:
                await self._wait_for_close(reader)
        except ConnectionError:
            return
        finally:
            for task in (player, reader):
                task.cancel()
            # The counters have recorded how the call ended; the exceptions of the tasks add nothing.
            await asyncio.gather(player, reader, return_exceptions=True)

    async def _wait_for_close(self, reader: asyncio.Task[Any]) -> None:
        await asyncio.wait({reader}, timeout=self._linger)
        if not self._ws.closed:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            await close_with(self._ws, "server read msg timeout")

    async def _play(self, script: Script, call: Call) -> None:
        pause = self._first_pause
        gap = self._gap if script.gap is None else script.gap
        for number, step in enumerate(script.steps, start=1):
            if isinstance(step, Send):
                await asyncio.sleep(pause)
                pause = gap
                if number == len(script.steps):
                    # Set before sending: a client may react to the frame before this task runs again.
                    call.is_complete = True
                await send_frame(self._ws, step.frame, is_binary=step.is_binary)
            elif isinstance(step, Stall):
                await asyncio.sleep(step.seconds)
            elif isinstance(step, Fail):
                await asyncio.sleep(pause)
                await self._fail(call, step.code, step.message)
                return
            else:
                call.has_failed = True
                if isinstance(step, Close):
                    await close_with(self._ws, code=step.code)
                else:
                    reset_connection(self._request.transport)
                return
        if self._closes if script.closes is None else script.closes:
            await close_with(self._ws)

    async def _fail(self, call: Call, code: int, message: str) -> None:
        call.has_failed = True
        await send_frame(self._ws, error_frame(code=code, message=message, sid=self._sid))
        await asyncio.sleep(ERROR_CLOSE_DELAY)
        await close_with(self._ws, message)
