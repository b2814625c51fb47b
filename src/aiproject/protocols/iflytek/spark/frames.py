"""Builds Spark frames: for answers of other providers, for errors, and for the sandbox."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from aiproject.protocols.chat import ChatEvent, Usage

__all__ = [
    "MAX_CLIENT_FRAME",
    "STATUS_FIRST",
    "STATUS_LAST",
    "STATUS_MIDDLE",
    "ascii_json",
    "error_frame",
    "render",
    "usage_members",
    "with_usage",
]

MAX_CLIENT_FRAME: Final = 2048
"""The largest frame in bytes that may contain non-ASCII characters; see `aiproject.protocols.iflytek.spark.answer`."""

STATUS_FIRST, STATUS_MIDDLE, STATUS_LAST = 0, 1, 2
"""``header.status``: the position of a frame in its answer."""

_encode = msgspec.json.Encoder().encode


def ascii_json(value: object) -> bytes:
    """Serialise as compact ASCII, which a client may split at any byte.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def usage_members(usage: Usage) -> dict[str, int]:
    """Return the members of ``payload.usage.text``."""
    return {
        "question_tokens": usage.question_tokens,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def render(event: ChatEvent, *, sid: str, seq: int, first: bool) -> bytes:
    """Return an event as a Spark frame, for events of other providers and for the sandbox.

    The frame is compact UTF-8 up to `MAX_CLIENT_FRAME` bytes and ASCII beyond. An event that is both first and last
    becomes the single frame of a short answer, with status 2.

    Args:
        sid: the session id, the same for all frames of an answer.
        seq: the number of the frame in the answer, from 0.
        first: whether this is the first frame of the answer.
    """
    status = STATUS_LAST if event.is_last else STATUS_FIRST if first else STATUS_MIDDLE
    element: dict[str, Any] = {"content": event.text, "role": "assistant", "index": 0}
    if event.reasoning:
        element["reasoning_content"] = event.reasoning
    if event.tool_calls:
        # A Spark frame carries exactly one complete call; a client would read a second one as the same call again.
        call = event.tool_calls[0]
        element["content_type"] = "text"
        element["function_call"] = {"arguments": call.arguments, "name": call.name}
    payload: dict[str, Any] = {"choices": {"status": status, "seq": seq, "text": [element]}}
    if event.usage is not None:
        payload["usage"] = {"text": usage_members(event.usage)}
    body = {"header": {"code": 0, "message": "Success", "sid": sid, "status": status}, "payload": payload}
    try:
        frame = _encode(body)
    except UnicodeEncodeError:
        return ascii_json(body)
    return frame if len(frame) <= MAX_CLIENT_FRAME or frame.isascii() else ascii_json(body)


def with_usage(frame: bytes, usage: Usage) -> bytes:
    """Return a last frame with other usage numbers, for a frame that reported none, once the charge is known.

    Args:
        frame: a ``native`` frame of `SparkAnswer`.
    """
    loaded = json.loads(frame)
    loaded["payload"]["usage"] = {"text": usage_members(usage)}
    return ascii_json(loaded)


def error_frame(*, code: int, message: str, sid: str | None) -> bytes:
    """Return an error in Spark's own form: no payload, status 2, ASCII.

    Args:
        code: not 0.
        message: displayed to the user.

    Raises:
        ValueError: ``code`` is 0, which would mean success.
    """
    if code == 0:
        raise ValueError("0 is not an error code")
    return ascii_json({"header": {"code": code, "message": message, "sid": sid or "", "status": STATUS_LAST}})
