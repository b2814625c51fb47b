"""The composition root: settings in, a ready application out. All resources are opened here, and closed in reverse."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import NamedTuple
from zoneinfo import ZoneInfo

from starlette.routing import BaseRoute

from aiproject.accounts.api_keys.service import ApiKeys
from aiproject.accounts.core.profiles import Profiles
from aiproject.accounts.core.service import Accounts
from aiproject.accounts.core.signups import SignupQuota
from aiproject.accounts.identity.authenticator import Authenticator
from aiproject.accounts.identity.authorizer import Authorizer
from aiproject.accounts.identity.cookie import CookieIdentity
from aiproject.accounts.identity.reauthentication import PasswordReauthentication
from aiproject.accounts.login.password_policy import common_passwords
from aiproject.accounts.login.throttle import LoginThrottle
from aiproject.accounts.routes.account import AccountRoutes
from aiproject.accounts.routes.api_keys import KeyRoutes
from aiproject.accounts.routes.legacy import AuthRoutes
from aiproject.accounts.routes.mail import MailRoutes
from aiproject.accounts.routes.sessions import SessionRoutes
from aiproject.accounts.selfservice.deletion import AccountDeletion
from aiproject.accounts.selfservice.recovery import Recovery
from aiproject.accounts.sessions.cookies import BrowserRules
from aiproject.accounts.sessions.service import Sessions
from aiproject.adapters.db import migrations
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.errors import Condition
from aiproject.adapters.db.write_probe import WriteProbe
from aiproject.adapters.http.asgi import ASGIApp
from aiproject.adapters.http.connection_counts import ConnectionCounts
from aiproject.adapters.http.event_limits import EventRateLimiter
from aiproject.adapters.http.rate_limiter import MemoryRateLimiter, RateLimiter
from aiproject.adapters.http.receive_budget import MIN_BUDGET_BYTES, ReceiveBudget
from aiproject.adapters.http.redis_rate_limiter import RedisRateLimiter, SharedRateLimiter
from aiproject.adapters.log import log_trouble
from aiproject.adapters.mailer import Mailer, MailQueue, parse_smtp_url
from aiproject.adapters.memory import memory_limit
from aiproject.adapters.net.redis import RedisLink
from aiproject.adapters.passwords import PasswordHasher, PasswordService
from aiproject.adapters.workers import Workers
from aiproject.administration.jwts import Signer, read_key
from aiproject.administration.routes import AdministrationRoutes, Services
from aiproject.administration.service import Administrators
from aiproject.administration.setup import SetupCode, SetupGuard
from aiproject.administration.table_store import Tables
from aiproject.administration.trial import ModelTrial
from aiproject.administration.users import UserAdministration
from aiproject.api.legacy.chat import ChatDefaults
from aiproject.api.legacy.routes import legacy_endpoints
from aiproject.api.openai.models import Models
from aiproject.api.openai.routes import openai_routes
from aiproject.assembly import open_database, opening, password_profile, prepare_schema, signup_voice_ms
from aiproject.audit.service import AuditLog
from aiproject.calls.chat import CallTimes, ChatCalls
from aiproject.calls.idempotency import IdempotencyStore
from aiproject.calls.limits import CallLimits, GlobalLimits
from aiproject.calls.running import RunningCalls
from aiproject.calls.services import CallServices
from aiproject.calls.unary import ClipCalls, PictureCalls
from aiproject.codes import Detail
from aiproject.config.iflytek import IflytekCredentials
from aiproject.config.settings import Settings
from aiproject.errors import AiProjectError, Misconfigured
from aiproject.ledger.checkpoints import Checkpoints
from aiproject.ledger.receipts import Receipts
from aiproject.ledger.routes import UsageRoutes
from aiproject.ledger.service import LeaseTimes, Quotas
from aiproject.protocols.dialects import Dialect
from aiproject.protocols.forwarding import TrustedProxies
from aiproject.providers.wiring import OpenProviders, Providers
from aiproject.providers.wiring import open_providers as open_all_providers
from aiproject.vouchers.routes import VoucherRoutes
from aiproject.vouchers.service import Vouchers
from aiproject.web.app import Endpoints, Readiness, build_app
from aiproject.web.dialects import DIALECTS
from aiproject.web.mail_pages import mail_pages
from aiproject.web.middleware import EdgePolicy

__all__ = ["Application", "connection_counts", "open_application", "open_redis"]


class Api(NamedTuple):
    """An API in addition to those that are always served.

    Attributes:
        dialect: renders errors below its prefix.
        routes: creates its routes from the services that run its calls.
    """

    dialect: Dialect
    routes: Callable[[CallServices], Sequence[BaseRoute]]


MEDIA_THREADS = 2
"""Threads that decode pictures and audio."""

HASHES_WAITING = 256
"""Logins and registrations that may wait for a thread; more are refused with ``Retry-After``. At a quarter of a second
each, the last one waits a minute."""

READINESS_TIMEOUT = 5.0
"""Seconds; probes commonly wait ten."""


@dataclass(frozen=True, slots=True)
class Application:
    """The web application, and the handle by which its server stops it gracefully."""

    asgi: ASGIApp
    calls: RunningCalls


def hash_threads(settings: Settings) -> int:
    """Return how many passwords may be hashed at once: as many as the cores can run with all of their lanes."""
    return max(1, (os.cpu_count() or 1) // settings.argon2_lanes)


def signup_quota(settings: Settings, quotas: Quotas) -> SignupQuota:
    """Return the rule that decides which registrations get the sign-up quota."""
    zone = ZoneInfo(settings.time_zone)
    voice_ms = None if settings.signup_voice_seconds is None else 0
    return SignupQuota(
        opening(settings, quotas),
        partial(quotas.grant_opening, tokens=0, pic_times=0, voice_ms=voice_ms),
        limit=settings.signups_per_address_per_day if settings.limits == "on" else None,
        now=lambda: datetime.now(zone),
    )


def open_outbox(settings: Settings) -> MailQueue | None:
    """Return the mail queue; ``None``: no mail server is configured.

    Raises:
        Misconfigured: only one of server and sender is given, or one of them is wrong.
    """
    url = settings.smtp_url.get_secret_value() if settings.smtp_url is not None else ""
    if not url and not settings.mail_from:
        return None
    if not url or not settings.mail_from:
        raise Misconfigured(Detail.SMTP_INCOMPLETE)
    return MailQueue(Mailer(parse_smtp_url(url), settings.mail_from))


@asynccontextmanager
async def open_redis(settings: Settings) -> AsyncIterator[RedisLink | None]:
    """Open the connection to the Redis of the settings, if they name one; its first use shows whether it responds."""
    if settings.redis_url is None or settings.limits == "off":
        yield None
        return
    async with RedisLink.opened(settings.redis_url.get_secret_value()) as link:
        yield link


@asynccontextmanager
async def open_rate_limiter(settings: Settings, link: RedisLink | None) -> AsyncIterator[RateLimiter | None]:
    """Open the counters of requests and running calls; ``None`` if limits are off."""
    if settings.limits == "off":
        yield None
    elif link is None:
        yield MemoryRateLimiter()
    else:
        async with RedisRateLimiter.opened(link) as shared:
            yield SharedRateLimiter(shared, MemoryRateLimiter())


def global_limits(settings: Settings) -> GlobalLimits:
    """Return the limits that apply to everyone's calls."""
    return GlobalLimits(
        settings.account_requests_per_minute, settings.account_concurrent_calls, settings.address_concurrent_calls
    )


def connection_counts(settings: Settings, most: int) -> ConnectionCounts:
    """Return the counters that admit connections.

    Args:
        most: the largest number of connections that this process can hold.
    """
    return ConnectionCounts(
        most,
        settings.address_connections if settings.limits == "on" else None,
        TrustedProxies(settings.trusted_proxies).trusts,
    )


def receive_budget(settings: Settings) -> ReceiveBudget:
    """Return the budget of memory for request bodies in this process; by default a quarter of all memory."""
    total = settings.receive_budget_bytes or memory_limit() // 4
    return ReceiveBudget(
        max(MIN_BUDGET_BYTES, total // settings.workers),
        settings.address_concurrent_uploads if settings.limits == "on" else None,
    )


async def open_passwords(stack: AsyncExitStack, settings: Settings) -> PasswordService:
    """Open the threads that hash passwords."""
    common_passwords()  # loaded now, because loading it later would delay running streams
    passwords = PasswordService(
        PasswordHasher(password_profile(settings)),
        threads=hash_threads(settings),
        queue=HASHES_WAITING,
        tells_addresses_apart=settings.limits == "on",
    )
    stack.push_async_callback(passwords.close)
    return passwords


async def open_quotas(stack: AsyncExitStack, settings: Settings, database: Database) -> Quotas:
    """Open the ledger, with the renewal of its leases and the writing of its checkpoints."""
    quotas = await stack.enter_async_context(
        Quotas.running(
            database,
            LeaseTimes(settings.hold_lease),
            zone=ZoneInfo(settings.time_zone),
            unpaid_per_day=settings.unpaid_tokens_per_day,
            wait=settings.quota_wait,
        )
    )
    await stack.enter_async_context(Checkpoints(database, settings.data_dir).running())
    return quotas


@dataclass(frozen=True, slots=True)
class _Limits:
    """The counters that all limits share.

    Attributes:
        requests: counts requests and running calls; ``None`` if limits are off.
        events: counts logins, registrations and similar events.
    """

    requests: RateLimiter | None
    events: EventRateLimiter


async def open_limits(stack: AsyncExitStack, settings: Settings) -> _Limits:
    """Open the rate limiters, in Redis if the settings name one."""
    link = await stack.enter_async_context(open_redis(settings))
    rate_limiter = await stack.enter_async_context(open_rate_limiter(settings, link))
    return _Limits(rate_limiter, EventRateLimiter(enabled=rate_limiter is not None, link=link))


def call_services(
    settings: Settings,
    running: RunningCalls,
    authenticator: Authenticator,
    quotas: Quotas,
    providers: Providers,
    idempotency: IdempotencyStore,
    limits: _Limits,
    workers: Workers,
) -> CallServices:
    """Return the services with which the APIs run their calls."""
    call_limits = CallLimits(limits.requests, global_limits(settings))
    return CallServices(
        running,
        authenticator,
        ChatCalls(
            running,
            quotas,
            providers.chat,
            idempotency,
            call_limits,
            model=settings.iflytek.spark.domain,
            times=CallTimes(settings.upstream_call_timeout, settings.client_gone_drain),
        ),
        PictureCalls(quotas, providers.ocr, workers, idempotency, call_limits),
        ClipCalls(quotas, providers.dictation, workers, idempotency, call_limits),
    )


@dataclass(frozen=True, slots=True)
class _Core:
    """The services that several endpoints share, opened in the order of the fields."""

    database: Database
    passwords: PasswordService
    limits: _Limits
    quotas: Quotas
    login_throttle: LoginThrottle
    accounts: Accounts
    keys: ApiKeys
    sessions: Sessions
    browser_rules: BrowserRules
    providers: Providers
    services: CallServices
    deletion: AccountDeletion


async def open_core(
    stack: AsyncExitStack, settings: Settings, credentials: IflytekCredentials, open_providers: OpenProviders
) -> _Core:
    """Open what the endpoints share; the stack closes it."""
    database = await stack.enter_async_context(open_database(settings))
    await prepare_schema(database)
    passwords = await open_passwords(stack, settings)
    workers = Workers(MEDIA_THREADS)
    stack.push_async_callback(workers.close)
    limits = await open_limits(stack, settings)
    running = RunningCalls()
    quotas = await open_quotas(stack, settings, database)
    running.on_drain(quotas.stop_waiting)
    login_throttle = LoginThrottle(database, guards_addresses=settings.limits == "on")
    accounts = Accounts(
        database,
        passwords,
        opening(settings, quotas),
        login_throttle=login_throttle,
        password_min_length=settings.password_min_length,
    )
    keys = ApiKeys(database)
    stack.push_async_callback(keys.close)
    sessions = Sessions(database, idle=settings.session_idle, lifetime=settings.session_lifetime)
    browser_rules = BrowserRules(settings.public_url, settings.session_lifetime)
    authenticator = Authenticator(accounts, keys, CookieIdentity(sessions, browser_rules))
    providers = await stack.enter_async_context(open_providers(settings, credentials))
    idempotency = IdempotencyStore(database, quotas)
    return _Core(
        database,
        passwords,
        limits,
        quotas,
        login_throttle,
        accounts,
        keys,
        sessions,
        browser_rules,
        providers,
        call_services(settings, running, authenticator, quotas, providers, idempotency, limits, workers),
        AccountDeletion(database, forget=[idempotency.forget]),
    )


def legacy_calls(settings: Settings, core: _Core) -> Mapping[str, ASGIApp]:
    """Return the legacy endpoints that run calls, by address."""
    spark = settings.iflytek.spark
    return legacy_endpoints(
        core.services,
        ChatDefaults(spark.max_tokens, spark.temperature, spark.top_k),
        core.limits.events,
        anonymous_voice=settings.voice_anonymous,
    )


def openai_api(settings: Settings, core: _Core) -> Sequence[BaseRoute]:
    """Return the routes of OpenAI's API."""
    spark = settings.iflytek.spark
    return openai_routes(core.services, Models(core.providers.chat, ("spark", spark.domain)), spark.max_tokens)


def owner_routes(settings: Settings, core: _Core, mail_queue: MailQueue | None) -> Sequence[BaseRoute]:
    """Return the routes by which people manage their own accounts."""
    zone = ZoneInfo(settings.time_zone)
    access = Authorizer(core.services.authenticator, [PasswordReauthentication(core.accounts)])
    sessions = SessionRoutes(core.accounts, core.sessions, core.browser_rules, access)
    account = AccountRoutes(core.accounts, Profiles(core.database), core.deletion, core.sessions, sessions, access)
    recovery = Recovery(core.database, core.accounts, core.login_throttle, mail_queue, settings.public_url)
    return [
        *sessions.routes(),
        *account.routes(),
        *KeyRoutes(core.keys, access, lambda: datetime.now(zone)).routes(),
        *MailRoutes(recovery, access, core.limits.events).routes(),
        *mail_pages(settings.password_min_length),
    ]


def administration(
    settings: Settings, core: _Core, vouchers: Vouchers, setup_code: SetupCode | None, app_id: str
) -> AdministrationRoutes:
    """Return the endpoints of the administration."""
    database, audit = core.database, AuditLog(core.database)
    return AdministrationRoutes(
        Services(
            administrators=Administrators(
                database,
                core.passwords,
                Signer(read_key(settings.data_dir, settings.admin_key_file)),
                login_throttle=core.login_throttle,
                password_min_length=settings.password_min_length,
            ),
            users=UserAdministration(
                database,
                core.passwords,
                core.accounts,
                core.deletion,
                voice_ms=signup_voice_ms(settings),
                password_min_length=settings.password_min_length,
            ),
            vouchers=vouchers,
            tables=Tables(database),
            trial=ModelTrial(core.providers.chat, core.services.running, audit),
            audit=audit,
            setup=SetupGuard(setup_code),
            limiter=core.limits.events,
        ),
        app_id=app_id,
    )


@asynccontextmanager
async def open_application(
    settings: Settings,
    credentials: IflytekCredentials,
    *,
    is_sandbox: bool,
    setup_code: SetupCode | None = None,
    open_providers: OpenProviders = open_all_providers,
    apis: Sequence[Api] = (),
) -> AsyncIterator[Application]:
    """Open everything that the application needs; close it in reverse at the end.

    Args:
        credentials: the console's, or the sandbox's.
        is_sandbox: whether they are the sandbox's.
        setup_code: the code that permits creating the first administrator; ``None``: only the command line does.
        open_providers: opens the providers that answer the calls.
        apis: APIs to serve in addition to the legacy one.

    Raises:
        Misconfigured: the operator must correct something first.
        Unavailable: the database does not respond.
    """
    async with AsyncExitStack() as stack:
        core = await open_core(stack, settings, credentials, open_providers)
        mail_queue = open_outbox(settings)
        if mail_queue is not None:
            await stack.enter_async_context(mail_queue.running())
        probe = WriteProbe(core.database)
        stack.push_async_callback(probe.close)
        vouchers = Vouchers(core.database)

        async def readiness() -> Readiness:
            return await check_readiness(core.database, probe, core.services.running)

        endpoints = Endpoints(
            auth=AuthRoutes(
                core.accounts,
                core.limits.events,
                signup_quota(settings, core.quotas),
                is_open=settings.registration == "open",
            ),
            calls=legacy_calls(settings, core),
            vouchers=VoucherRoutes(core.accounts, vouchers, core.limits.requests),
            usage=UsageRoutes(core.services.authenticator, Receipts(core.database)),
            more=[
                *owner_routes(settings, core, mail_queue),
                *administration(settings, core, vouchers, setup_code, credentials.app_id).routes(),
                *openai_api(settings, core),
                *(route for api in apis for route in api.routes(core.services)),
            ],
        )
        yield Application(
            build_app(
                endpoints,
                readiness=readiness,
                is_sandbox=is_sandbox,
                cors_origins=settings.cors_origins,
                edge_policy=EdgePolicy(
                    TrustedProxies(settings.trusted_proxies),
                    core.limits.requests,
                    settings.address_requests_per_minute,
                    receive_budget(settings),
                ),
                body_timeout=settings.body_timeout,
                dialects=DIALECTS.with_more(api.dialect for api in apis),
            ),
            core.services.running,
        )


async def check_readiness(database: Database, probe: WriteProbe, calls: RunningCalls) -> Readiness:
    """Check whether this process can serve: it is not stopping, and the database is writable with a current schema.

    A log that cannot be written is reported, but calls are served without it.
    """
    parts = {"database": "ok", "migrations": "ok", "server": "stopping" if calls.is_draining else "ok"}
    condition = await probe.condition()
    if condition is not None:
        parts |= {"database": condition, "migrations": "unknown"}
    else:
        try:
            async with asyncio.timeout(READINESS_TIMEOUT):
                status = await migrations.status(database)
            if not status.is_current:
                parts["migrations"] = f"at {status.current}, need {status.head}"
        except (AiProjectError, TimeoutError):
            parts |= {"database": Condition.AWAY, "migrations": "unknown"}
    is_ready = all(value == "ok" for value in parts.values())
    return Readiness(is_ready, {**parts, "log": str(log_trouble() or "ok")})
