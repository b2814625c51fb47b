"""Repairs frames that deviate harmlessly from the documents.

Two readers depend on it: our own, which expects the documented types, and the existing desktop app, which receives the
platform's frames unchanged and loses the rest of an answer on a frame without text.
"""

from __future__ import annotations

import json
from typing import Any, Final

from aiproject.protocols.chat import Usage
from aiproject.protocols.iflytek.spark.frames import ascii_json, usage_members

__all__ = ["WrongTypeError", "normalise", "repair"]

USAGE_NUMBERS: Final = ("question_tokens", "prompt_tokens", "completion_tokens", "total_tokens")


class WrongTypeError(Exception):
    """A member has a type that cannot be repaired."""


def _integer(value: object) -> int | None:
    """Return an integer that was serialised as another type, such as ``"0"`` or ``0.0``."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and len(value) <= 20 and value.isascii() and value.isdigit():
        return int(value)
    raise WrongTypeError


def _member(parent: dict[str, Any], name: str) -> dict[str, Any] | None:
    value = parent.get(name)
    if value is not None and not isinstance(value, dict):
        raise WrongTypeError
    return value


def _without_lone_surrogates(text: str) -> str:
    """Replace lone surrogates by U+FFFD, because they cannot be encoded downstream."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def normalise(loaded: dict[str, Any]) -> None:
    """Repair harmless deviations in place: numbers in strings, labels of other types, lone surrogates.

    The error code is checked before the payload, because the payload of an error frame may have any form.
    """
    header = _member(loaded, "header")
    if header is None:
        raise WrongTypeError
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
        for name in USAGE_NUMBERS:
            numbers[name] = _integer(numbers.get(name))


def _normalise_element(element: object) -> None:
    if not isinstance(element, dict):
        raise WrongTypeError
    if not isinstance(element.get("role"), str):
        element["role"] = "assistant"
    call = _member(element, "function_call")
    if call is not None and isinstance(call.get("arguments"), dict):  # an object, where the document has a string
        call["arguments"] = json.dumps(call["arguments"], ensure_ascii=False)
    for holder in (element, call or {}):
        for name in ("content", "reasoning_content", "name", "arguments"):
            if isinstance(holder.get(name), str):
                holder[name] = _without_lone_surrogates(holder[name])


def repair(loaded: dict[str, Any], *, status: int, seq: int, usage: Usage | None) -> bytes:
    """Return a frame that a client of the legacy API can read; ``loaded`` is modified.

    The result is always ASCII, so that it may have any length (see `aiproject.protocols.iflytek.spark.answer`).
    """
    # The app takes a frame with a top-level "code" for an error of our own.
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
        payload["usage"]["text"].update(usage_members(usage))
    return ascii_json(loaded)
