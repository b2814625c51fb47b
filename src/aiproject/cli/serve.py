"""``aiproject serve`` and ``aiproject sandbox``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO, cast

import typer
from rich.console import Console
from rich.panel import Panel

from aiproject import __version__
from aiproject.adapters.db import migrations
from aiproject.adapters.log import standard_error
from aiproject.administration.setup import SETUP_SECONDS, SetupCode
from aiproject.assembly import open_database
from aiproject.cli.admins import administrators
from aiproject.cli.common import errors, language, read_settings
from aiproject.config.iflytek import IflytekCredentials
from aiproject.config.settings import Settings
from aiproject.messages.commands import Line
from aiproject.messages.formatting import format_message
from aiproject.server import Serving, bind, serve

if TYPE_CHECKING:
    from aiproject.sandbox.running import SandboxThread

__all__ = ["sandbox_command", "serve_command"]


def serve_command(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    workers: Annotated[int | None, typer.Option(help="Server processes that share the port.")] = None,
) -> None:
    """Run the server. Without iFlytek credentials the sandbox answers, inside this process."""
    with errors():
        settings = read_settings(is_server=True, host=host, port=port, workers=workers)
        listener = bind(settings.host, settings.port)
        sandbox: SandboxThread | None = None
        credentials = settings.credentials
        try:
            if credentials is None:
                # Not imported if the platform is used: with its HTTP server it takes about 10 MB.
                from aiproject.sandbox.platform import SandboxOptions
                from aiproject.sandbox.running import SandboxThread

                sandbox = SandboxThread(SandboxOptions(speech_model=settings.sandbox_speech_model))
                settings, credentials = point_at_sandbox(settings, sandbox)
            code = asyncio.run(setup_code(settings)) if standard_error().isatty() else None
            bound = listener.getsockname()
            address = f"http://{_in_url(bound[0])}:{bound[1]}"
            status = serve(
                Serving(settings, credentials, sandbox is not None, code),
                listener,
                on_ready=lambda: _banner(address, settings, sandbox is not None, code),
            )
        finally:
            listener.close()
            if sandbox is not None:
                sandbox.stop()
    raise typer.Exit(status)


def point_at_sandbox(settings: Settings, sandbox: SandboxThread) -> tuple[Settings, IflytekCredentials]:
    """Start the sandbox and return settings that direct calls to it in place of the platform."""
    address = sandbox.start()
    credentials = IflytekCredentials(address.app_id, address.api_key, address.api_secret)
    services = settings.iflytek
    spark = services.spark.model_copy(update={"url": address.spark_url, "domain": "generalv3.5"})
    # English, since the sandbox's recognizer supports only that.
    dictation = services.dictation.model_copy(
        update={"url": address.dictation_url, "language": "en_us", "accent": ""},
    )
    ocr = services.ocr.model_copy(update={"url": address.ocr_url})
    services = services.model_copy(update={"spark": spark, "dictation": dictation, "ocr": ocr})
    return settings.model_copy(update={"iflytek": services}), credentials


async def setup_code(settings: Settings) -> SetupCode | None:
    """Draw the code for creating the first administrator, if there is none yet and a terminal is attached."""
    async with open_database(settings) as database:
        status = await migrations.status(database)
        if status.is_current:
            async with administrators(settings, database) as found:
                if await found.exist():
                    return None
        # Tables that are created or repaired at the start may contain some by then, so the server checks again.
        return SetupCode.draw()


def sandbox_command(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.")] = 9101,
    speech_model: Annotated[
        Path | None,
        typer.Option(
            help="Directory of a sherpa-onnx model for speech recognition.", envvar="AIPROJECT_SANDBOX_SPEECH_MODEL"
        ),
    ] = None,
) -> None:
    """Run only the local stand-in of the iFlytek platform; prints what to set to use it."""
    from aiproject.sandbox.platform import SandboxOptions
    from aiproject.sandbox.running import run_forever

    with errors():
        read_settings(is_server=True)
        run_forever(SandboxOptions(speech_model=speech_model), port)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _banner(address: str, settings: Settings, is_sandbox: bool, code: SetupCode | None) -> None:
    reader = language()
    is_file = settings.effective_database_url.startswith("sqlite")
    database = "SQLite" if is_file else format_message(Line.BANNER_DATABASE_SERVER, reader)
    upstream = format_message(Line.BANNER_SANDBOX, reader) if is_sandbox else "iFlytek"
    first = ""
    if code is not None:
        first = "\n\n  " + format_message(
            Line.BANNER_FIRST_ADMINISTRATOR,
            reader,
            minutes=SETUP_SECONDS // 60,
            address=address,
            code=code.code,
        )
    title = format_message(Line.BANNER_TITLE, reader, version=__version__, address=address)
    Console(file=cast("TextIO", standard_error())).print(
        Panel.fit(
            f"{title}\n"
            f"  upstream   {upstream}\n"
            f"  database   {database}\n"
            f"  API        {address}/docs\n"
            f"  health     {address}/health   {address}/ready{first}",
            border_style="yellow" if is_sandbox else "green",
        )
    )
