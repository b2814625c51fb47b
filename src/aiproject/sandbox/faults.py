"""The faults that the sandbox can simulate, and the registry of requested faults.

A fault is requested in the last user message, ``[[fault:error code=10012 at=first]]`` (chat and image understanding),
or through the control API, ``{"service": "ocr", "fault": "nul", "times": 2}``. `FAULTS` is the complete list;
``docs/en/reference/sandbox.md`` describes it, and a test compares the two.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

__all__ = [
    "FAULTS",
    "GATEWAY_REFUSALS",
    "SERVICES",
    "Fault",
    "FaultKind",
    "FaultRegistry",
    "FaultRequest",
    "InvalidFault",
    "parse_fault_requests",
    "strip_fault_markers",
]

SERVICES: Final = ("chat", "image", "dictation", "ocr")

_WEBSOCKET: Final = ("chat", "image", "dictation")
_CHAT: Final = ("chat", "image")

Value = int | float | str


class InvalidFault(ValueError):
    """A fault request that cannot be carried out; the text says why."""


@dataclass(frozen=True)
class Choice:
    """An option with a fixed set of values; the first is the default."""

    values: tuple[str, ...]

    @property
    def default(self) -> Value:
        return self.values[0]

    def read(self, value: object) -> Value:
        if value not in self.values:
            raise InvalidFault(f"must be one of {', '.join(self.values)}")
        return str(value)


@dataclass(frozen=True)
class Number:
    """A number with a range; an integer if the default is one."""

    default: Value
    low: float
    high: float

    def read(self, value: object) -> Value:
        whole = isinstance(self.default, int)
        if isinstance(value, str):
            try:
                value = int(value) if whole else float(value)
            except ValueError:
                raise InvalidFault("must be a number") from None
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise InvalidFault("must be a whole number" if whole else "must be a number")
        if not self.low <= value <= self.high:
            raise InvalidFault(f"must be between {self.low:g} and {self.high:g}")
        return int(value) if whole else float(value)


@dataclass(frozen=True)
class Text:
    """A text of bounded length."""

    default: Value = ""
    max_length: int = 500

    def read(self, value: object) -> Value:
        if not isinstance(value, str) or len(value) > self.max_length:
            raise InvalidFault(f"must be a text of at most {self.max_length} characters")
        return value


@dataclass(frozen=True)
class FaultKind:
    """One way in which the platform can fail.

    Attributes:
        services: the services that it can be requested for.
        stage: ``gateway``: before the service sees the request, so that a prompt cannot request it; ``call``: in the
            service itself.
        options: the options by name, with their ranges.
    """

    services: tuple[str, ...]
    stage: Literal["gateway", "call"] = "call"
    options: Mapping[str, Choice | Number | Text] = field(default_factory=dict)


_SECONDS: Final = Number(3600.0, 0, 86_400)
_AFTER: Final = Number(2, 0, 100_000)
_AT: Final = Choice(("first", "middle"))

GATEWAY_REFUSALS: Final[Mapping[str, tuple[int, str]]] = {
    "unauthorized": (401, "Unauthorized"),
    "unverified": (401, "HMAC signature cannot be verified"),
    "credential": (401, "HMAC signature cannot be verified: fail to retrieve credential"),
    "apikey": (401, "HMAC signature cannot be verified: apikey not found"),
    "mismatch": (401, "HMAC signature does not match"),
    "date": (
        403,
        "HMAC signature cannot be verified, a valid date or x-date header is required for HMAC Authentication",
    ),
    "date_mismatch": (
        403,
        "HMAC signature does not match, a valid date or x-date header is required for HMAC Authentication",
    ),
    "ip": (403, "Your IP address is not allowed"),
    "service": (403, "you are not allowed to access this service"),
    "not_found": (404, "not found"),
}
"""Status and message of the gateway's refusals, by the value of the fault's option ``reason``."""

FAULTS: Final[Mapping[str, FaultKind]] = {
    # -- before the service --
    "refuse": FaultKind(SERVICES, "gateway", {"reason": Choice(tuple(GATEWAY_REFUSALS))}),
    "clock": FaultKind(SERVICES, "gateway", {"seconds": Number(600.0, -1e9, 1e9)}),
    "hang": FaultKind(SERVICES, "gateway", {"seconds": _SECONDS}),
    "drop": FaultKind(SERVICES, "gateway"),
    "html": FaultKind(SERVICES, "gateway", {"status": Number(502, 200, 599)}),
    # -- in the service --
    "error": FaultKind(
        SERVICES,
        options={
            "code": Number(10012, 1, 999_999_999),
            "message": Text(),
            "at": _AT,
            "after": _AFTER,
            "http": Number(502, 200, 599),
            "flat": Number(0, 0, 1),
        },
    ),
    "stall": FaultKind(SERVICES, options={"at": _AT, "after": _AFTER, "seconds": _SECONDS}),
    "reset": FaultKind(SERVICES, options={"after": _AFTER}),
    "truncate": FaultKind(_WEBSOCKET, options={"after": _AFTER, "code": Number(1000, 1000, 4999)}),
    "slow": FaultKind(SERVICES, options={"seconds": Number(0.5, 0, 3600)}),
    "not_json": FaultKind(SERVICES, options={"after": _AFTER}),
    "no_payload": FaultKind(SERVICES, options={"after": _AFTER}),
    "huge": FaultKind(SERVICES, options={"bytes": Number(10 * 1024 * 1024, 1, 64 * 1024 * 1024), "after": _AFTER}),
    # -- chat and image understanding --
    "single": FaultKind(_CHAT),
    "empty": FaultKind((*_CHAT, "ocr")),
    "null": FaultKind(_CHAT),
    "plugins": FaultKind(_CHAT),
    "reasoning": FaultKind(_CHAT),
    "function_call": FaultKind(_CHAT, options={"name": Text("get_weather"), "arguments": Text('{"city":"合肥"}')}),
    "frames": FaultKind(_CHAT, options={"n": Number(120, 1, 100_000)}),
    "emoji": FaultKind(_CHAT),
    "wide": FaultKind(_CHAT, options={"bytes": Number(4096, 1, 1024 * 1024)}),
    "usage": FaultKind(_CHAT, options={"value": Choice(("negative", "absurd", "missing", "text", "total"))}),
    "binary": FaultKind(_CHAT, options={"after": _AFTER}),
    "no_close": FaultKind(_CHAT),
    # -- dictation --
    "wpgs": FaultKind(("dictation",)),
    "no_pgs": FaultKind(("dictation",)),
    "vad": FaultKind(("dictation",), options={"seconds": Number(1.0, 0, 60)}),
    "silence": FaultKind(("dictation",)),
    # -- picture text --
    "nul": FaultKind(("ocr",), options={"n": Number(16, 1, 100_000)}),
}
"""Every fault, by name."""


@dataclass(frozen=True)
class Fault:
    """One fault, ready to happen: every option has a value in its range."""

    kind: str
    options: Mapping[str, Value]

    def whole(self, name: str) -> int:
        """The value of a whole-number option."""
        return int(self.options[name])

    def number(self, name: str) -> float:
        """The value of a number option."""
        return float(self.options[name])

    def text(self, name: str) -> str:
        """The value of a text option or a choice."""
        return str(self.options[name])


def _make_fault(kind: str, given: Mapping[str, object]) -> Fault:
    known = FAULTS.get(kind)
    if known is None:
        raise InvalidFault(f"no fault is named {kind[:40]!r}; there are {', '.join(FAULTS)}")
    values = {name: option.default for name, option in known.options.items()}
    for name, value in given.items():
        option = known.options.get(name)
        if option is None:
            names = ", ".join(known.options) or "none"
            raise InvalidFault(f"{kind} has no option {name[:40]!r}; it has {names}")
        try:
            values[name] = option.read(value)
        except InvalidFault as wrong:
            raise InvalidFault(f"{kind}: {name} {wrong}") from None
    return Fault(kind, values)


# -- requests in a prompt ----------------------------------------------------------------------------------------------

# A marker is bounded in length and contains no brackets, which bounds the work on any prompt.
_MARKER: Final = re.compile(r"\[\[fault:([^\[\]\n]{1,400})\]\]")
_PAIR: Final = re.compile(r'([a-z_]+)=("[^"]*"|\S+)\Z')


def strip_fault_markers(prompt: str) -> str:
    """Return the prompt without the markers that `parse_fault_markers` reads."""
    return _MARKER.sub("", prompt).strip()


def parse_fault_markers(prompt: str) -> list[tuple[Fault, int]]:
    """Parse the fault markers in a prompt; each fault comes with the number of calls it applies to, 0 for every call.

    The form is ``[[fault:KIND option=value …]]``. KIND may be omitted if ``code=`` is given; a value with spaces is
    quoted. Malformed markers are ignored, because any prompt must get an answer.
    """
    found: list[tuple[Fault, int]] = []
    for match in _MARKER.finditer(prompt):
        kind, given = "", dict[str, object]()
        parts = re.findall(r'[^\s"]*"[^"]*"|\S+', match[1])
        for part in parts:
            pair = _PAIR.fullmatch(part)
            if pair is not None:
                given[pair[1]] = pair[2].strip('"')
            elif not kind:
                kind = part
        if not kind and "code" in given:
            kind = "error"
        try:
            times = int(Number(0, 0, 1_000_000).read(given.pop("times", 0)))
            fault = _make_fault(kind, given)
        except InvalidFault:
            continue
        if FAULTS[kind].stage == "call" and "chat" in FAULTS[kind].services:
            found.append((fault, times))
    return found


# -- requests through the control API ----------------------------------------------------------------------------------


@dataclass
class FaultRequest:
    """A pending fault.

    Attributes:
        service: one of `SERVICES`, or ``any``.
        remaining: the number of calls it still applies to; ``None``: every call until it is removed.
    """

    service: str
    fault: Fault
    remaining: int | None


def parse_fault_requests(body: object) -> list[FaultRequest]:
    """Parse the body of a request to the control API: one fault request or a list of them.

    Raises:
        InvalidFault: one of them is malformed; none is accepted then.
    """
    requests = []
    for entry in body if isinstance(body, list) else [body]:
        if not isinstance(entry, dict):
            raise InvalidFault('an order is an object such as {"service": "chat", "fault": "stall", "times": 1}')
        given = dict(entry)
        service, kind, times = given.pop("service", "any"), given.pop("fault", None), given.pop("times", 1)
        if service not in (*SERVICES, "any"):
            raise InvalidFault(f"service must be one of {', '.join(SERVICES)} or any")
        if not isinstance(kind, str):
            raise InvalidFault(f"fault must be one of {', '.join(FAULTS)}")
        fault = _make_fault(kind, given)
        if service != "any" and service not in FAULTS[kind].services:
            raise InvalidFault(f"{kind} can be ordered for {', '.join(FAULTS[kind].services)}, not for {service}")
        try:
            count = int(Number(1, 0, 1_000_000).read(1 if times is None else times))
        except InvalidFault as wrong:
            raise InvalidFault(f"times {wrong}; 0 is every call") from None
        requests.append(FaultRequest(service, fault, count or None))
    return requests


class FaultRegistry:
    """The pending fault requests, oldest first; safe to use from any thread."""

    _MAX_REQUESTS = 1000
    _MAX_PROMPTS = 1000

    def __init__(self) -> None:
        self._requests: list[FaultRequest] = []
        self._prompts: OrderedDict[bytes, int] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, requests: Sequence[FaultRequest]) -> None:
        """Add requests. Raises `InvalidFault` if the registry is full."""
        with self._lock:
            if len(self._requests) + len(requests) > self._MAX_REQUESTS:
                raise InvalidFault(f"at most {self._MAX_REQUESTS} orders can wait")
            self._requests.extend(requests)

    def clear(self) -> None:
        """Remove all requests, and reset the counts of prompts with ``times``."""
        with self._lock:
            self._requests.clear()
            self._prompts.clear()

    def pending(self) -> list[dict[str, Any]]:
        """Return the pending requests, ready for JSON; ``times`` 0 means every call."""
        with self._lock:
            return [
                {"service": o.service, "fault": o.fault.kind, "times": o.remaining or 0, **o.fault.options}
                for o in self._requests
            ]

    def take(self, service: str, stage: Literal["gateway", "call"]) -> list[Fault]:
        """Take the faults for one call at one stage.

        These are the oldest request that counts its calls, and every request without a count. Counted requests take
        turns, so that two of them affect two consecutive calls.
        """
        taken: list[Fault] = []
        with self._lock:
            has_counted = False
            for request in list(self._requests):
                kind = FAULTS[request.fault.kind]
                if kind.stage != stage or service not in kind.services or request.service not in (service, "any"):
                    continue
                if request.remaining is None:
                    taken.append(request.fault)
                elif not has_counted:
                    has_counted = True
                    taken.append(request.fault)
                    request.remaining -= 1
                    if request.remaining == 0:
                        self._requests.remove(request)
        return taken

    def take_from_prompt(self, prompt: str) -> list[Fault]:
        """Take the faults that a prompt requests.

        ``times=2`` makes the same prompt fail twice and then succeed; after that, the cycle repeats.
        """
        requests = parse_fault_markers(prompt)
        if not requests:
            return []
        max_times = max(times for _, times in requests)
        count = self._count(prompt, max_times) if max_times else 1
        return [fault for fault, times in requests if not times or count <= times]

    def _count(self, prompt: str, max_times: int) -> int:
        """Return how often this prompt has come in its current cycle of ``max_times`` + 1 calls, this time included."""
        key = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).digest()
        with self._lock:
            count = self._prompts.pop(key, 0) + 1
            if count <= max_times:
                self._prompts[key] = count
            if len(self._prompts) > self._MAX_PROMPTS:
                self._prompts.popitem(last=False)
        return count
