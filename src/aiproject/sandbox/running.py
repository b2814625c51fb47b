"""Runs the sandbox in a thread beside the server or a test, or alone in the foreground."""

from __future__ import annotations

import asyncio
import errno
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TextIO

import uvloop
from aiohttp import web

from aiproject.codes import Detail
from aiproject.errors import Misconfigured
from aiproject.sandbox.faults import FaultRegistry
from aiproject.sandbox.platform import Platform, SandboxOptions, build_app, platform_of

__all__ = ["SandboxAddress", "SandboxThread", "run_forever"]

_HOST = "127.0.0.1"
_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class SandboxAddress:
    """The address of a running sandbox and the credentials that it accepts."""

    port: int
    app_id: str
    api_key: str = field(repr=False)
    api_secret: str = field(repr=False)

    @property
    def spark_url(self) -> str:
        """Spark Max, whose domain is ``generalv3.5``."""
        return f"ws://{_HOST}:{self.port}/v3.5/chat"

    @property
    def dictation_url(self) -> str:
        """Dictation in the classic protocol."""
        return f"ws://{_HOST}:{self.port}/v2/iat"

    @property
    def large_model_dictation_url(self) -> str:
        """Dictation in the large model's protocol."""
        return f"ws://{_HOST}:{self.port}/v1"

    @property
    def ocr_url(self) -> str:
        """OCR by ``hh_ocr_recognize_doc``."""
        return f"http://{_HOST}:{self.port}/v1/private/hh_ocr_recognize_doc"

    @property
    def image_url(self) -> str:
        """Image understanding."""
        return f"ws://{_HOST}:{self.port}/v2.1/image"

    @property
    def control_url(self) -> str:
        """Base of the control API: ``/faults`` and ``/calls`` below it."""
        return f"http://{_HOST}:{self.port}/sandbox"

    def environment(self) -> dict[str, str]:
        """Return the settings that point a server at this sandbox, by the names of their environment variables."""
        return {
            "AIPROJECT_IFLYTEK_APP_ID": self.app_id,
            "AIPROJECT_IFLYTEK_API_KEY": self.api_key,
            "AIPROJECT_IFLYTEK_API_SECRET": self.api_secret,
            "AIPROJECT_SPARK_URL": self.spark_url,
            "AIPROJECT_SPARK_DOMAIN": "generalv3.5",
            "AIPROJECT_DICTATION_URL": self.dictation_url,
            "AIPROJECT_OCR_URL": self.ocr_url,
        }


class _Runner:
    """The application on a listening socket, inside a running event loop."""

    def __init__(self, options: SandboxOptions, port: int) -> None:
        self._options = options
        self._port = port
        app = build_app(options)
        self.platform: Platform = platform_of(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, handle_signals=False)

    async def open(self) -> SandboxAddress:
        """Start to listen. Raises `Misconfigured` if the port is unavailable; then there is nothing to close."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, _HOST, self._port, backlog=1024)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            if error.errno == errno.EADDRINUSE:
                raise Misconfigured(Detail.SANDBOX_PORT_TAKEN, port=self._port) from error
            raise Misconfigured(Detail.SANDBOX_PORT_UNUSABLE, port=self._port, reason=error.strerror or "") from error
        port = int(self._runner.addresses[0][1])
        return SandboxAddress(port, self._options.app_id, self._options.api_key, self._options.api_secret)

    async def close(self) -> None:
        await self._runner.cleanup()


class SandboxThread:
    """A sandbox in a thread of its own, with its own event loop.

    A separate loop keeps the sandbox's work out of the latency of the server or test that calls it. Usable as a context
    manager.

    Args:
        options: the sandbox's behaviour; `SandboxOptions()` by default.
        port: 0 selects a free one.
    """

    def __init__(self, options: SandboxOptions | None = None, port: int = 0) -> None:
        self.options = options or SandboxOptions()
        self._port = port
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()
        self._address: SandboxAddress | None = None
        self._platform: Platform | None = None
        self._failure: BaseException | None = None

    @property
    def faults(self) -> FaultRegistry:
        """The fault registry of the running sandbox."""
        return self._running().faults

    @property
    def engine_names(self) -> dict[str, str]:
        """The names of the engines for ``speech`` and ``pictures``."""
        return self._running().engine_names

    def calls(self) -> dict[str, Any]:
        """Return the counters as ``GET /sandbox/calls`` publishes them."""
        loop = self._loop
        platform = self._running()
        if loop is None or not loop.is_running():
            # Before the loop runs and after it has ended, no other thread changes the counters.
            return platform.calls.snapshot()

        async def snapshot() -> dict[str, Any]:
            return platform.calls.snapshot()

        return asyncio.run_coroutine_threadsafe(snapshot(), loop).result(timeout=5)

    def start(self) -> SandboxAddress:
        """Start the thread and wait until the sandbox listens.

        Raises:
            Misconfigured: the port is taken, or the named speech model cannot be used.
        """
        if self._thread is not None:
            raise RuntimeError("the sandbox was started already")
        self._thread = threading.Thread(target=self._run, name="aiproject-sandbox", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        if self._address is None:
            raise RuntimeError("the sandbox's thread ended before it listened")
        return self._address

    def stop(self) -> None:
        """End all calls, close the engines and wait for the thread. Does nothing if the sandbox is not running."""
        if self._thread is None or self._loop is None or self._stop is None:
            return
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=_STOP_SECONDS)

    def __enter__(self) -> SandboxAddress:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _running(self) -> Platform:
        if self._platform is None:
            raise RuntimeError("the sandbox was not started")
        return self._platform

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except Exception as error:  # noqa: BLE001 - handed over to the thread that waits in start()
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        runner = _Runner(self.options, self._port)
        self._platform = runner.platform
        self._address = await runner.open()
        self._started.set()
        try:
            await self._stop.wait()
        finally:
            await runner.close()


def run_forever(options: SandboxOptions, port: int, *, output: TextIO | None = None) -> None:
    """Run the sandbox in the foreground until SIGINT or SIGTERM, for the command ``aiproject sandbox``.

    Prints the settings that point a server at it, as lines to paste into a shell.

    Args:
        port: 0 selects a free one.
        output: the stream to print to; standard output by default.

    Raises:
        Misconfigured: as `SandboxThread.start`.
    """
    out = sys.stdout if output is None else output

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        handlers: list[Callable[[], object]] = []
        runner = _Runner(options, port)
        address = await runner.open()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
            handlers.append(lambda number=number: loop.remove_signal_handler(number))  # type: ignore[misc]
        try:
            engines = runner.platform.engine_names
            out.write(
                f"# The sandbox of AiProject listens on 127.0.0.1:{address.port}. It is not iFlytek.\n"
                f"# speech: {engines['speech']}; pictures: {engines['pictures']}; chat: canned answers\n"
                f"# faults: POST {address.control_url}/faults; counters: GET {address.control_url}/calls\n"
            )
            out.writelines(f"export {name}='{value}'\n" for name, value in address.environment().items())
            out.flush()
            await stop.wait()
        finally:
            for remove in handlers:
                remove()
            await runner.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
