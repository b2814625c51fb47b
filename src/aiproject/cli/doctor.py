"""``aiproject doctor``: checks a set-up and says what to fix."""

from __future__ import annotations

import asyncio
import time
import timeit
from typing import Annotated
from urllib.parse import urlsplit

import typer

from aiproject.adapters.db import migrations
from aiproject.adapters.net.redis import COMMAND_SECONDS, RedisAway
from aiproject.adapters.passwords import PasswordHasher
from aiproject.assembly import open_database, password_profile
from aiproject.cli.common import error_text, errors, language, out, read_settings
from aiproject.cli.findings import (
    Finding,
    examine_configuration_file,
    examine_exposure,
    examine_files,
    examine_password_length,
)
from aiproject.cli.name_findings import examine_names
from aiproject.codes import Param
from aiproject.config.settings import Settings
from aiproject.errors import (
    AiProjectError,
    InvalidInput,
    Misconfigured,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamUnreachable,
)
from aiproject.messages.commands import Line
from aiproject.protocols.addresses import parse_network
from aiproject.protocols.chat import ChatMessage, ChatRequest
from aiproject.protocols.iflytek.dictation.dialect import dictation_dialect
from aiproject.protocols.iflytek.ocr.client import ocr_service
from aiproject.protocols.iflytek.spark.models import known_domains
from aiproject.providers.wiring import iflytek_connector, iflytek_spark
from aiproject.wiring import open_redis

__all__ = ["doctor_command"]


HASHES_MEASURED = 3

HASH_SECONDS = (0.25, 0.5)
"""Seconds, lowest and highest, that one hash should take on an idle machine: a compromise between the cost of guessing
and the delay of a login."""

OWASP_ONE_PASS_MEMORY = 47_104
OWASP_LEAST_MEMORY = 19_456
"""KiB."""

STYLES = {"ok": "green", "note": "yellow", "fix": "red"}


def doctor_command(
    upstream: Annotated[
        bool, typer.Option(help="Ask the platform a short question (costs a few of its tokens).")
    ] = True,
) -> None:
    """Check configuration, database, clock and upstream credentials; exit status 1 if something has to be fixed."""
    with errors():
        settings = read_settings()
        findings = asyncio.run(examine(settings, ask_upstream=upstream))
    for finding in findings:
        out.print(f"[{STYLES[finding.level]}]{finding.level:<5}[/] {finding.subject:<14} ", end="", highlight=False)
        out.print(finding.text(language()), markup=False, highlight=False, soft_wrap=True)
    if any(finding.level == "fix" for finding in findings):
        raise typer.Exit(1)


async def examine(settings: Settings, *, ask_upstream: bool) -> list[Finding]:
    """Return the findings about an installation."""
    findings = [
        *examine_configuration(settings),
        *examine_exposure(settings),
        *examine_configuration_file(),
        *examine_files(settings),
        examine_passwords(settings),
        examine_password_length(settings),
        *await examine_database(settings),
        *await examine_limits(settings),
    ]
    if ask_upstream and settings.credentials is not None:
        findings += await examine_upstream(settings)
    return findings


def examine_configuration(settings: Settings) -> list[Finding]:
    """Examine the settings alone."""
    findings = []
    if settings.credentials is None:
        findings.append(
            Finding(
                "note",
                "credentials",
                Line.CREDENTIALS_MISSING,
            )
        )
    else:
        findings.append(Finding("ok", "credentials", Line.CREDENTIALS_GIVEN))
    domains = known_domains(settings.iflytek.spark.url)
    if domains is None:
        findings.append(
            Finding("note", "text model", Line.MODEL_ADDRESS_UNKNOWN, place=_place(settings.iflytek.spark.url))
        )
    elif settings.iflytek.spark.domain not in domains:
        findings.append(
            Finding(
                "fix",
                "text model",
                Line.DOMAIN_MISFITS,
                domain=settings.iflytek.spark.domain,
                place=_place(settings.iflytek.spark.url),
                domains=domains,
            )
        )
    else:
        findings.append(
            Finding(
                "ok",
                "text model",
                Line.SERVICE_AT,
                name=settings.iflytek.spark.domain,
                place=_place(settings.iflytek.spark.url),
            )
        )
    findings.append(
        Finding(
            "ok",
            "dictation",
            Line.SERVICE_AT,
            name=dictation_dialect(settings.iflytek.dictation.url).value,
            place=_place(settings.iflytek.dictation.url),
        )
    )
    try:
        ocr_service(settings.iflytek.ocr.url)
        findings.append(Finding("ok", "picture text", Line.PLACE, place=_place(settings.iflytek.ocr.url)))
    except AiProjectError as error:
        findings.append(Finding("fix", "picture text", Line.ERROR, text=error_text(error)))
    for name, url in (
        ("spark", settings.iflytek.spark.url),
        ("dictation", settings.iflytek.dictation.url),
        ("ocr", settings.iflytek.ocr.url),
    ):
        parts = urlsplit(url)
        if parts.scheme in ("ws", "http") and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            findings.append(Finding("fix", f"{name} address", Line.ADDRESS_PLAIN))
    return findings


async def examine_limits(settings: Settings) -> list[Finding]:
    """Examine how requests are counted, and whether clients can be distinguished."""
    findings: list[Finding] = []
    if settings.limits == "off":
        pass  # reported by `examine_exposure`, which knows how severe it is
    elif settings.redis_url is not None:
        findings.append(await examine_redis(settings))
    elif settings.workers > 1:
        findings.append(
            Finding(
                "note",
                "limits",
                Line.LIMITS_BY_WORKER,
                workers=settings.workers,
            )
        )
    else:
        findings.append(Finding("ok", "limits", Line.LIMITS_IN_PROCESS))
    wide = [text for text in settings.trusted_proxies if parse_network(text).prefixlen == 0]
    if wide:
        findings.append(
            Finding(
                "fix",
                "proxies",
                Line.PROXIES_WIDE,
                networks=wide,
            )
        )
    elif settings.trusted_proxies:
        findings.append(Finding("ok", "proxies", Line.PROXIES_BELIEVED, proxies=settings.trusted_proxies))
    return findings


async def examine_redis(settings: Settings) -> Finding:
    """Check whether Redis responds."""
    try:
        async with open_redis(settings) as link:
            if link is None:
                return Finding("note", "limits", Line.LIMITS_OFF)
            began = time.perf_counter()
            await link.run(link.redis.ping)
            took = time.perf_counter() - began
    except RedisAway:
        return Finding(
            "fix",
            "limits",
            Line.REDIS_SILENT,
            seconds=COMMAND_SECONDS,
        )
    except Misconfigured as error:
        return Finding("fix", "limits", Line.ERROR, text=error_text(error))
    return Finding("ok", "limits", Line.LIMITS_IN_REDIS, milliseconds=took * 1000)


def examine_passwords(settings: Settings) -> Finding:
    """Hash a few passwords on this machine, and report whether the cost is adequate."""
    hasher = PasswordHasher(password_profile(settings))
    seconds = min(timeit.repeat(hasher.dummy_verify, number=1, repeat=HASHES_MEASURED))
    return judge_hashing(settings.argon2_memory, settings.argon2_passes, settings.argon2_lanes, seconds)


def judge_hashing(memory: int, passes: int, lanes: int, seconds: float) -> Finding:
    """Assess hashing parameters and the measured time.

    The minimum is OWASP's: 46 MiB and one pass, or 19 MiB and two (Password Storage Cheat Sheet, 2024). The time is
    proportional to memory times passes. Memory is the greatest cost for an attacker, so a change of the passes is
    advised first.

    Args:
        memory: KiB.
        passes: iterations over the memory.
        lanes: degree of parallelism.
        seconds: the measured time of one hash.
    """
    profile: dict[str, Param] = {"memory": memory, "passes": passes, "lanes": lanes, "seconds": seconds}
    if memory < OWASP_ONE_PASS_MEMORY and passes < 2:
        return Finding("fix", "passwords", Line.HASHING_WEAK, **profile)
    fastest, slowest = HASH_SECONDS
    if fastest <= seconds <= slowest:
        return Finding("ok", "passwords", Line.HASHING, **profile)
    wanted = memory * passes * (fastest + slowest) / 2 / seconds
    better_passes = max(1 if memory >= OWASP_ONE_PASS_MEMORY else 2, round(wanted / memory))
    better_memory = memory
    if seconds > slowest and wanted < memory * better_passes * 0.7:
        better_passes = 2
        better_memory = max(OWASP_LEAST_MEMORY, int(wanted / better_passes) // 1024 * 1024)
    advised = []
    if better_memory != memory:
        advised.append(f"AIPROJECT_ARGON2_MEMORY={better_memory}")
    if better_passes != passes:
        advised.append(f"AIPROJECT_ARGON2_PASSES={better_passes}")
    if not advised:
        return Finding("ok", "passwords", Line.HASHING_AT_LEAST, **profile)
    advice = " ".join(advised)
    return Finding(
        "note", "passwords", Line.HASHING_ADVISED, **profile, fastest=fastest, slowest=slowest, advice=advice
    )


async def examine_database(settings: Settings) -> list[Finding]:
    """Connect to the database and examine its schema."""
    try:
        async with open_database(settings) as database:
            state = await migrations.status(database)
            names = await examine_names(database) if state.is_current else []
    except AiProjectError as error:
        return [Finding("fix", "database", Line.ERROR, text=error_text(error))]
    if state.is_current:
        return [
            Finding("ok", "database", Line.DATABASE_CURRENT, dialect=database.dialect, revision=str(state.current)),
            *names,
        ]
    if state.is_empty:
        return [Finding("note", "database", Line.DATABASE_EMPTY, dialect=database.dialect)]
    if state.is_newer:
        return [Finding("fix", "database", Line.DATABASE_NEWER, revision=str(state.current))]
    return [Finding("fix", "database", Line.DATABASE_BEHIND)]


async def examine_upstream(settings: Settings) -> list[Finding]:
    """Ask the text model a short question, to check the credentials and the clock."""
    credentials = settings.credentials
    if credentials is None:
        return []
    link = iflytek_connector(settings, credentials)
    upstream = iflytek_spark(settings, link)
    findings = []
    try:
        stream = await upstream.ask(ChatRequest((ChatMessage("user", "1"),), max_tokens=1))
        stream.close()
        findings.append(Finding("ok", "upstream", Line.UPSTREAM_ANSWERS))
    except UpstreamRefused as error:
        findings.append(Finding("fix", "upstream", Line.UPSTREAM_REFUSES, detail=error.detail))
    except UpstreamUnreachable as error:
        findings.append(Finding("fix", "upstream", Line.UPSTREAM_UNREACHABLE, detail=error.detail))
    except (UpstreamFailed, InvalidInput) as error:
        findings.append(Finding("fix", "upstream", Line.ERROR, text=error_text(error)))
    offset = link.clock_offset_seconds
    if abs(offset) > 1:
        findings.append(Finding("fix", "clock", Line.CLOCK_OFF, seconds=-offset))
    else:
        findings.append(Finding("ok", "clock", Line.CLOCK_FINE))
    return findings


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.netloc}{parts.path}"
