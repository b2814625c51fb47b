"""Runs the application in one process, or in several that share the port, and shuts it down gracefully.

On SIGTERM or Ctrl-C the port is closed, running calls get a grace period, the remaining streams are ended with an error
frame, and all resources are closed in reverse order.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType

import uvicorn
import uvloop

from aiproject.adapters import log as logging_setup
from aiproject.adapters.fault_points import arm
from aiproject.adapters.http.connections import connection_limit, guarded, websocket_options
from aiproject.adapters.http.server_version import check_server_version
from aiproject.adapters.log import get_logger
from aiproject.administration.setup import SetupCode
from aiproject.calls.running import RunningCalls
from aiproject.codes import Detail
from aiproject.config.iflytek import IflytekCredentials
from aiproject.config.settings import Settings
from aiproject.errors import AiProjectError, Misconfigured, Unavailable
from aiproject.messages.formatting import Language, format_error
from aiproject.web.app import WEBSOCKET_PATHS
from aiproject.web.dialects import DIALECTS
from aiproject.wiring import connection_counts, open_application

__all__ = ["Serving", "bind", "serve"]

log = get_logger("server")

EXIT_MISCONFIGURED = 78
"""Exit status if the operator must fix the configuration (EX_CONFIG of sysexits): starting again is useless."""

EXIT_FAILED = 70
"""Exit status if the process could not start for a reason that may be temporary (EX_SOFTWARE of sysexits)."""

KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: more than the 60 s of common proxies, so that they close it first and no
request is sent on a connection that the server is closing."""

CLIENT_TIMEOUT = 120.0
"""Seconds for which a client may accept none of the data sent to it, intentionally or because its network is lost,
before its connection is dropped. Without this limit a suspended app would hold its call and the upstream connection
indefinitely."""

GARBAGE_YOUNG = 10_000
"""New objects that trigger a garbage collection of the youngest generation; Python's default is 700. Some megabytes."""

BACKLOG = 2048
"""Maximum number of connections that wait to be accepted."""

RESTART_PAUSE = 1.0
"""Seconds: a worker that ends sooner after its start is replaced only after such a pause, so that a failing start does
not loop at full speed."""


@dataclass(frozen=True, slots=True)
class Serving:
    """The arguments of a worker, which are pickled and sent to its process."""

    settings: Settings
    credentials: IflytekCredentials
    is_sandbox: bool
    setup_code: SetupCode | None = None


class _Server(uvicorn.Server):
    """A uvicorn server that opens the application around its run and drains calls before it closes connections."""

    def __init__(self, config: uvicorn.Config, serving: Serving, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._serving = serving
        self._on_ready = on_ready
        self._calls: RunningCalls | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        serving = self._serving
        async with open_application(
            serving.settings, serving.credentials, is_sandbox=serving.is_sandbox, setup_code=serving.setup_code
        ) as application:
            self._calls = application.calls
            self.config.app = application.asgi
            settle_memory()
            await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        if self._calls is not None:
            log.info("stopping", running_calls=len(self._calls))
            await self._calls.drain(self._serving.settings.shutdown_grace, skip_grace=lambda: self.force_exit)
        await super().shutdown(sockets)


def settle_memory() -> None:
    """Exclude the objects loaded so far, which are permanent, from later garbage collections, and collect less often.

    A collection visits all container objects, some hundred thousand after the start. With Python's default threshold,
    the few hundred short-lived objects of a call trigger one at every other call: a tenth of a call's cost.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_YOUNG, *gc.get_threshold()[1:])


def bind(host: str, port: int, *, client_timeout: float = CLIENT_TIMEOUT) -> socket.socket:
    """Return a socket that listens on the port.

    Args:
        client_timeout: see `CLIENT_TIMEOUT`; only Linux supports it.

    Raises:
        Misconfigured: the port is in use, or the process may not bind it.
    """
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = infos[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # accepted connections inherit the option
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(client_timeout * 1000))
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.set_inheritable(True)
    except OSError as error:
        raise Misconfigured(Detail.PORT_UNUSABLE, host=host, port=port, reason=error.strerror or str(error)) from None
    return listener


def serve(serving: Serving, listener: socket.socket, *, on_ready: Callable[[], None] = lambda: None) -> int:
    """Serve until a signal stops the process; return the exit status.

    Args:
        listener: a bound socket, see `bind`.
        on_ready: called once the (first) process accepts calls.
    """
    # uvicorn raises the signal again after a clean shutdown; with these handlers that becomes a normal exit.
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    if serving.settings.workers == 1:
        return _run(serving, listener, on_ready)
    return _Supervisor(serving, listener, on_ready).run()


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


def make_server(serving: Serving, *, on_ready: Callable[[], None] = lambda: None) -> uvicorn.Server:
    """Return the server of one process, to be run with ``await server.serve([listener])`` in any event loop.

    It opens all resources when it runs and closes them at the end. Setting its attribute ``should_exit`` ends it after
    draining running calls; ``force_exit`` skips the grace period.
    """
    check_server_version()
    config = uvicorn.Config(
        app=_no_app,
        loop="uvloop",
        # Any callable that returns a protocol works, but uvicorn's annotation does not allow it.
        http=guarded(  # type: ignore[arg-type]
            head_timeout=serving.settings.body_timeout,
            counts=connection_counts(serving.settings, connection_limit(serving.settings.max_connections)),
            reader_timeout=serving.settings.reader_timeout,
            dialects=DIALECTS,
            websocket_paths=WEBSOCKET_PATHS,
        ),
        **websocket_options(WEBSOCKET_PATHS),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=5,
    )
    return _Server(config, serving, on_ready)


def _run(serving: Serving, listener: socket.socket, on_ready: Callable[[], None]) -> int:
    try:
        arm(serving.settings.fault_point)
        server = make_server(serving, on_ready=on_ready)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(server.serve([listener]))
    except Misconfigured as error:
        log.error("cannot start", fix=format_error(error, Language.EN))
        return EXIT_MISCONFIGURED
    except Unavailable as error:
        log.error("cannot start", error=error.detail)
        return EXIT_FAILED
    except AiProjectError as error:
        log.error("cannot start", error=type(error).__name__)
        return EXIT_FAILED
    return 0


async def _no_app(scope: object, receive: object, send: object) -> None:
    raise RuntimeError("the application is set when it is open")


# -- several processes -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    ready: Connection
    started: float = field(default_factory=time.monotonic)
    is_told_to_stop: bool = False


class _Supervisor:
    """Keeps the configured number of workers running, replaces a worker that ends, and stops all of them together."""

    def __init__(self, serving: Serving, listener: socket.socket, on_ready: Callable[[], None]) -> None:
        self._serving = serving
        self._listener = listener
        self._on_ready = on_ready
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._is_stopping = False
        # Workers hold the reading end. The writing end closes with this process, even if it is killed.
        self._alive_reader, self._alive_writer = self._context.Pipe(duplex=False)

    def run(self) -> int:
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        told = False
        for _ in range(self._serving.settings.workers):
            if not self._is_stopping:
                self._start()
        status = 0
        while self._workers:
            if self._is_stopping:
                self._tell_workers()  # including a worker that was being started when the signal arrived
            waitable: list[object] = [worker.process.sentinel for worker in self._workers]
            waitable += [worker.ready for worker in self._workers if not worker.ready.closed]
            wait(waitable, timeout=1.0)  # type: ignore[arg-type] # sentinels are numbers, connections have fileno
            for worker in list(self._workers):
                if not worker.ready.closed and worker.ready.poll():
                    try:
                        worker.ready.recv()
                        if not told:
                            told = True
                            self._on_ready()
                    except EOFError:
                        pass  # it ended before it was ready, which its exit status below shows
                    worker.ready.close()
                if worker.process.exitcode is not None:
                    status = self._died(worker) or status
        return status

    def _start(self) -> None:
        ready_reader, ready_writer = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_work,
            args=(self._serving, self._listener, ready_writer, self._alive_reader),
            name="aiproject-worker",
        )
        process.start()
        ready_writer.close()
        self._workers.append(_Worker(process, ready_reader))

    def _died(self, worker: _Worker) -> int:
        self._workers.remove(worker)
        worker.process.join()
        if not worker.ready.closed:
            worker.ready.close()
        code = worker.process.exitcode or 0
        if self._is_stopping:
            return 0
        if code == EXIT_MISCONFIGURED:
            self._stop()
            return code
        log.warning("a worker ended, starting another", pid=worker.process.pid, exit_status=code)
        if time.monotonic() - worker.started < RESTART_PAUSE:
            time.sleep(RESTART_PAUSE)
        if not self._is_stopping:
            self._start()
        return 0

    def _stop(self, number: int = 0, frame: FrameType | None = None) -> None:
        self._is_stopping = True
        self._tell_workers()

    def _tell_workers(self) -> None:
        for worker in self._workers:
            # Only once: a second signal could interrupt the closing of the database.
            if not worker.is_told_to_stop and worker.process.exitcode is None:
                worker.is_told_to_stop = True
                worker.process.terminate()


def _work(serving: Serving, listener: socket.socket, ready: Connection, alive: Connection) -> None:
    """Run a worker; the entry point of its process."""
    logging_setup.configure(serving.settings.log_level, serving.settings.log_format)
    # The terminal sends Ctrl-C to the whole process group; a worker waits for the supervisor's SIGTERM instead.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_stop_when_orphaned, args=(alive,), daemon=True).start()

    def tell() -> None:
        ready.send(True)
        ready.close()

    sys.exit(_run(serving, listener, tell))


def _stop_when_orphaned(alive: Connection) -> None:
    try:
        alive.recv()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
