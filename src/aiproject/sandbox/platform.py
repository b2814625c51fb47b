"""The sandbox's application: gateway, routes and the control API."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web

from aiproject.protocols.iflytek.dictation.dialect import DictationDialect
from aiproject.protocols.iflytek.ocr.client import OCR_SERVICES, OcrService
from aiproject.protocols.iflytek.signing import SignatureRefused, http_date, verify
from aiproject.sandbox.chat import ChatCall, read_image_question, read_question
from aiproject.sandbox.counters import Call, Calls
from aiproject.sandbox.dictation import DictationCall
from aiproject.sandbox.engines import PictureEngine, SpeechEngine, find_picture_engine, find_speech_engine
from aiproject.sandbox.faults import GATEWAY_REFUSALS, FaultRegistry, InvalidFault, parse_fault_requests
from aiproject.sandbox.ocr import answer_ocr
from aiproject.sandbox.wire import reset_connection

__all__ = ["Platform", "SandboxOptions", "build_app", "platform_of"]

SPARK_PATHS: Final = (
    "/v1.1/chat",
    "/v2.1/chat",
    "/v3.1/chat",
    "/v3.5/chat",
    "/v4.0/chat",
    "/chat/pro-128k",
    "/chat/max-32k",
    "/v1/x1",
    "/x2",
    "/v1.1/chat_kjwx",
    "/v1.1/chat_multilang",
)
"""The paths of chat, one for each model; `aiproject.protocols.iflytek.spark.models` maps them to domains."""

IMAGE_PATH: Final = "/v2.1/image"
DICTATION_PATHS: Final = {"/v2/iat": DictationDialect.CLASSIC, "/v1": DictationDialect.LARGE_MODEL}
OCR_PATHS: Final = {f"/v1/private/{name}": service for name, service in OCR_SERVICES.items()}

_MAX_BODY: Final = 16 * 1024 * 1024
"""Bytes of a request or a websocket message: 10 MB is the largest audio frame that any of the documents allows."""

_clock_offset: Final[ContextVar[float]] = ContextVar("clock_offset", default=0.0)
"""Seconds by which a requested fault shifts the clock for the current request."""


def _hex(length: int) -> Callable[[], str]:
    return lambda: secrets.token_hex(length)


@dataclass(frozen=True)
class SandboxOptions:
    """How one sandbox behaves. Durations are in seconds.

    Attributes:
        app_id: at most 8 characters; generated for each start by default, as are the next two.
        api_key: identifies the application at the gateway.
        api_secret: the HMAC key.
        clock: seconds since 1970, UTC; signatures are checked against it, and ``Date`` headers report it.
        first_frame_delay: before the first frame of a chat answer.
        frame_gap: between the frames of a chat answer, so that streaming is visible.
        round_trip: of a simulated network: an upgrade costs two of them (TCP, then HTTP), a question one.
        server_closes: whether the sandbox closes after the last frame of a chat, as the documents say, or the client.
        linger: how long to wait for the client's close, where the client closes first (dictation: always).
        request_timeout: how long a chat connection may wait for its question.
        dictation_gap: how long a dictation may pause between frames.
        is_wpgs_licensed: whether the application is licensed for dynamic correction; requests for it are otherwise
            ignored silently, as the platform does.
        use_engines: whether to look for installed engines where none is given below.
        speech_model: the folder of a sherpa-onnx model.
        speech: the speech recogniser; not closed with the sandbox.
        pictures: the text recogniser; not closed with the sandbox.
    """

    app_id: str = field(default_factory=lambda: f"sbx{secrets.token_hex(3)[:5]}")
    api_key: str = field(default_factory=_hex(16), repr=False)
    api_secret: str = field(default_factory=_hex(16), repr=False)
    clock: Callable[[], float] = time.time
    first_frame_delay: float = 0.02
    frame_gap: float = 0.02
    round_trip: float = 0.0
    server_closes: bool = True
    linger: float = 10.0
    request_timeout: float = 60.0
    dictation_gap: float = 10.0
    is_wpgs_licensed: bool = True
    use_engines: bool = True
    speech_model: Path | None = None
    speech: SpeechEngine | None = None
    pictures: PictureEngine | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.app_id) <= 8:
            raise ValueError("app_id has 1 to 8 characters")


class Platform:
    """The state of one sandbox.

    Attributes:
        faults: the pending fault requests.
        calls: the counters.
        speech, pictures: the engines in use; ``None`` for speech means the labelled transcript.
    """

    def __init__(self, options: SandboxOptions) -> None:
        """Raises `Misconfigured` if a speech model is named that cannot be used."""
        self.options = options
        self.faults = FaultRegistry()
        self.calls = Calls()
        self._own_engines: list[SpeechEngine | PictureEngine] = []
        self.speech = options.speech
        if self.speech is None and options.use_engines:
            self.speech = find_speech_engine(options.speech_model)
            if self.speech is not None:
                self._own_engines.append(self.speech)
        if options.pictures is not None:
            self.pictures = options.pictures
        else:
            self.pictures = find_picture_engine(is_real=options.use_engines)
            self._own_engines.append(self.pictures)
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def engine_names(self) -> dict[str, str]:
        """The names of the engines, for display."""
        speech = self.speech.name if self.speech is not None else "none (labelled default transcript)"
        return {"speech": speech, "pictures": self.pictures.name}

    # -- the gateway ---------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """The sandbox's clock, as the current request sees it."""
        return datetime.fromtimestamp(self.options.clock() + _clock_offset.get(), tz=UTC)

    async def admit(self, request: web.Request, service: str) -> web.Response | None:
        """Perform the gateway's checks before a service sees the request; ``None``: the request is admitted."""
        _clock_offset.set(0.0)  # all requests of a kept-alive connection share one context
        for fault in self.faults.take(service, "gateway"):
            if fault.kind == "clock":
                _clock_offset.set(fault.number("seconds"))
            elif fault.kind == "refuse":
                return _refusal(*GATEWAY_REFUSALS[fault.text("reason")])
            elif fault.kind == "html":
                page = "<html><head><title>Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>"
                return web.Response(status=fault.whole("status"), text=page, content_type="text/html")
            else:
                if fault.kind == "hang":
                    await asyncio.sleep(fault.number("seconds"))
                reset_connection(request.transport)
                return _refusal(502, "never sent: the connection is gone")
        await asyncio.sleep(2 * self.options.round_trip)
        try:
            verify(
                method=request.method,
                path=request.rel_url.raw_path,
                query=request.query,
                secrets={self.options.api_key: self.options.api_secret},
                now=self.now(),
            )
        except SignatureRefused as refused:
            return _refusal(refused.status, refused.message)
        return None

    def serve(
        self, service: str, handler: Callable[[web.Request, Call], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Wrap the handler of a service: gateway checks, counters, and cancellation when the sandbox stops."""

        async def wrapper(request: web.Request) -> web.StreamResponse:
            task = asyncio.current_task()
            if task is not None:
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            refusal = await self.admit(request, service)
            if refusal is not None:
                self.calls.refuse(service)
                return refusal
            with self.calls.call(service) as call:
                return await handler(request, call)

        return wrapper

    # -- services ------------------------------------------------------------------------------------------------------

    async def chat(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Handle any of `SPARK_PATHS`."""
        path, app_id = request.path, self.options.app_id
        return await self._converse(request, call, "chat", lambda frame: read_question(frame, app_id=app_id, path=path))

    async def image(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Handle `IMAGE_PATH`."""
        app_id = self.options.app_id
        return await self._converse(request, call, "image", lambda frame: read_image_question(frame, app_id=app_id))

    async def _converse(
        self, request: web.Request, call: Call, service: str, read: Callable[[bytes], Any]
    ) -> web.StreamResponse:
        ws = await self._upgrade(request)
        if ws is None:
            return _refusal(400, "websocket upgrade required")
        options = self.options
        chat = ChatCall(
            request,
            ws,
            read,
            service=service,
            registry=self.faults,
            pause=(options.first_frame_delay + options.round_trip, options.frame_gap),
            closes=options.server_closes,
            request_timeout=options.request_timeout,
            linger=options.linger,
        )
        await chat.run(self.calls, call)
        return ws

    async def dictation(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Handle any of `DICTATION_PATHS`."""
        ws = await self._upgrade(request)
        if ws is None:
            return _refusal(400, "websocket upgrade required")
        dictation = DictationCall(
            request,
            ws,
            DICTATION_PATHS[request.path],
            app_id=self.options.app_id,
            engine=self.speech,
            faults=self.faults.take("dictation", "call"),
            gap=self.options.dictation_gap,
            linger=self.options.linger,
            is_wpgs_licensed=self.options.is_wpgs_licensed,
            round_trip=self.options.round_trip,
        )
        await dictation.run(self.calls, call)
        return ws

    async def ocr(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Handle any of `OCR_PATHS`."""
        service: OcrService = OCR_PATHS[request.path]
        if request.content_type != "application/json":
            call.has_failed = True
            return _refusal(400, "content-type must be application/json")
        return await answer_ocr(
            request,
            service,
            app_id=self.options.app_id,
            engine=self.pictures,
            faults=self.faults.take("ocr", "call"),
            calls=self.calls,
            call=call,
        )

    async def _upgrade(self, request: web.Request) -> web.WebSocketResponse | None:
        ws = web.WebSocketResponse(max_msg_size=_MAX_BODY, compress=False, timeout=2.0)
        if not ws.can_prepare(request):
            return None
        await ws.prepare(request)
        return ws

    # -- the control API -----------------------------------------------------------------------------------------------

    async def add_faults(self, request: web.Request) -> web.Response:
        """Handle ``POST /sandbox/faults``."""
        # Requiring this media type protects against cross-site requests: a browser sends it to another origin only
        # after a preflight, which the sandbox does not answer.
        if request.content_type != "application/json":
            return _json(415, {"message": "content-type must be application/json"})
        try:
            requests = parse_fault_requests(msgspec.json.decode(await request.read()))
            self.faults.add(requests)
        except InvalidFault as wrong:
            return _json(400, {"message": str(wrong)})
        except (ValueError, RecursionError):
            return _json(400, {"message": "the body is not JSON"})
        return _json(200, {"pending": self.faults.pending()})

    async def list_faults(self, _request: web.Request) -> web.Response:
        """Handle ``GET /sandbox/faults``."""
        return _json(200, {"pending": self.faults.pending()})

    async def clear_faults(self, _request: web.Request) -> web.Response:
        """Handle ``DELETE /sandbox/faults``."""
        self.faults.clear()
        return _json(200, {"pending": []})

    async def count_calls(self, _request: web.Request) -> web.Response:
        """Handle ``GET /sandbox/calls``."""
        return _json(200, {**self.calls.snapshot(), "engines": self.engine_names})

    # -- shutdown ------------------------------------------------------------------------------------------------------

    async def end_calls(self, _app: web.Application) -> None:
        """Cancel the calls in progress, so that a stalled answer does not delay the shutdown."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self, _app: web.Application) -> None:
        """Close the engines that this sandbox opened itself."""
        for engine in self._own_engines:
            engine.close()


_PLATFORM: Final = web.AppKey("platform", Platform)


def platform_of(app: web.Application) -> Platform:
    """Return the state of an application made by `build_app`."""
    return app[_PLATFORM]


def build_app(options: SandboxOptions) -> web.Application:
    """Build the sandbox's application.

    Raises:
        Misconfigured: the named speech model cannot be used.
    """
    platform = Platform(options)
    app = web.Application(client_max_size=_MAX_BODY)
    app[_PLATFORM] = platform
    for path in SPARK_PATHS:
        app.router.add_get(path, platform.serve("chat", platform.chat), allow_head=False)
    app.router.add_get(IMAGE_PATH, platform.serve("image", platform.image), allow_head=False)
    for path in DICTATION_PATHS:
        app.router.add_get(path, platform.serve("dictation", platform.dictation), allow_head=False)
    for path in OCR_PATHS:
        app.router.add_post(path, platform.serve("ocr", platform.ocr))
    app.router.add_post("/sandbox/faults", _loopback_only(platform.add_faults))
    app.router.add_get("/sandbox/faults", _loopback_only(platform.list_faults))
    app.router.add_delete("/sandbox/faults", _loopback_only(platform.clear_faults))
    app.router.add_get("/sandbox/calls", _loopback_only(platform.count_calls))
    app.router.add_route("*", "/{path:.*}", _not_found)
    app.on_response_prepare.append(_add_date_header)
    app.on_shutdown.append(platform.end_calls)
    app.on_cleanup.append(platform.close)
    return app


async def _add_date_header(request: web.Request, response: web.StreamResponse) -> None:
    """Add the platform's clock to each response: clients measure the offset of their own clock by it."""
    response.headers["Date"] = http_date(platform_of(request.app).now())
    response.headers["Server"] = "aiproject-sandbox"


async def _not_found(_request: web.Request) -> web.Response:
    return _refusal(404, "not found")


def _loopback_only(
    handler: Callable[[web.Request], Awaitable[web.Response]],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Restrict the control API to callers on this machine, whatever address the sandbox listens on."""

    async def wrapper(request: web.Request) -> web.Response:
        with suppress(ValueError):
            if ip_address(request.remote or "").is_loopback:
                return await handler(request)
        return await _not_found(request)

    return wrapper


def _refusal(status: int, message: str) -> web.Response:
    """Return an error in the gateway's form: a JSON body declared as plain text."""
    return web.Response(
        status=status,
        body=msgspec.json.encode({"message": message}),
        content_type="text/plain",
        charset="utf-8",
    )


def _json(status: int, body: object) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")
