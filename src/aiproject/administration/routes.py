"""The endpoints of the administration: each reads its request, calls one use case and answers.

Source: the original's clients, section 8.3, for what the original has; it has no ``setup``, ``logout`` and ``audit``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from msgspec import Struct, structs
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from aiproject.adapters.http.asgi import client_address, note, request_id
from aiproject.adapters.http.errors import error_response
from aiproject.adapters.http.event_limits import EventRateLimiter, Rate
from aiproject.adapters.http.fields import read_fields_as
from aiproject.adapters.http.operation import BodyOperation, Operation, envelope, route_of, succeed
from aiproject.administration import operations
from aiproject.administration.auth_guard import AuthGuard, Call, Handler
from aiproject.administration.bodies import (
    AdministratorSignedIn,
    AppInfo,
    AuditExportQuery,
    AuditFilters,
    AuditPage,
    AuditQuery,
    AuditRecord,
    CountQuery,
    OneRow,
    RenewedToken,
    RowQuery,
    SwitchVoucher,
    TableCount,
    TablePage,
    TableQuery,
)
from aiproject.administration.model import MASK, Malformed, Role
from aiproject.administration.service import Administrators, Change
from aiproject.administration.setup import SetupGuard
from aiproject.administration.table_store import TABLES, Tables, TableUnknown
from aiproject.administration.trial import ModelTrial, trial_request
from aiproject.administration.users import NewProfile, UserAdministration
from aiproject.api.legacy.bodies import WholeAnswer
from aiproject.audit.model import AuditFilter
from aiproject.audit.service import EXPORT_MEDIA_TYPES, AuditLog, exported
from aiproject.codes import Success
from aiproject.errors import AiProjectError, InvalidInput
from aiproject.vouchers.service import Vouchers

__all__ = ["AdministrationRoutes", "Services"]

MODEL_TRIALS = Rate("model trial of an administrator", "20/minute")
"""They are charged to no account, so a limit stops a console that was left running."""

SETUP_GUESSES = Rate("guess of the setup code", "10/minute")
"""By address, beside the few guesses that a code allows at all."""

Out = Mapping[str, Any]
In = TypeVar("In", bound=Struct)


@dataclass(frozen=True, slots=True)
class Services:
    """What the endpoints call."""

    administrators: Administrators
    users: UserAdministration
    vouchers: Vouchers
    tables: Tables
    trial: ModelTrial
    audit: AuditLog
    setup: SetupGuard
    limiter: EventRateLimiter


class AdministrationRoutes:
    """The endpoints; `routes` returns them for `aiproject.web` to mount.

    Args:
        app_id: of the vendor's application, of which the console gets the first two characters.
    """

    def __init__(self, services: Services, *, app_id: str) -> None:
        self._services = services
        self._app_id = app_id

    def routes(self) -> Sequence[Route]:
        """Return all of them."""
        guard = AuthGuard(self._services.administrators)
        guarded: tuple[tuple[Operation, Handler], ...] = (
            (operations.LOGOUT, self.logout),
            (operations.TRIAL, self.try_model),
            (operations.ADD_USER, self.add_user),
            (operations.MODIFY_USER, self.modify_user),
            (operations.DELETE_USER, self.delete_user),
            (operations.ADD_ADMINISTRATOR, self.add_administrator),
            (operations.MODIFY_ADMINISTRATOR, self.modify_administrator),
            (operations.DELETE_ADMINISTRATOR, self.delete_administrator),
            (operations.ADD_VOUCHER, self.add_voucher),
            (operations.MODIFY_VOUCHER, self.modify_voucher),
            (operations.DELETE_VOUCHER, self.delete_voucher),
            (operations.SWITCH_VOUCHER, self.switch_voucher),
            (operations.PAGE, self.show_page),
            (operations.COUNT, self.count_rows),
            (operations.ROW, self.show_row),
            (operations.AUDIT, self.show_audit),
            (operations.EXPORT_AUDIT, self.export_audit),
        )
        endpoints: list[tuple[Operation, Callable[[Request], Awaitable[Response]]]] = [
            (operations.LOGIN, self.login),
            (operations.SET_UP, self.set_up),
            (operations.REFRESH, guard.protect(self.refresh, kind="refresh")),
            *((operation, guard.protect(handler)) for operation, handler in guarded),
        ]
        return [route_of(operation, endpoint) for operation, endpoint in endpoints]

    # -- sessions -------------------------------------------------------------------------------------------------

    async def login(self, request: Request) -> Response:
        """Open a session; the vendor's keys, which the console reads, are masked."""
        try:
            shown = await _read(operations.LOGIN, request)
            signed_in = await self._services.administrators.login(
                shown.admin, shown.password, client_address(request.scope), request_id(request.scope)
            )
        except AiProjectError as error:
            return error_response(request, error)
        note(request.scope, administrator=signed_in.administrator.admin_id, outcome="ok")
        body = AdministratorSignedIn(
            access_token=signed_in.access_token,
            refresh_token=signed_in.refresh_token,
            app_info=AppInfo(app_id=f"{self._app_id[:2]}{MASK}", api_key=MASK, api_secret=MASK),
            role=signed_in.administrator.role,
        )
        return succeed(request, Success.ADMIN_LOGGED_IN, body)

    async def set_up(self, request: Request) -> Response:
        """Make the first administrator, by the code that the terminal shows."""
        services = self._services
        address = client_address(request.scope)
        try:
            await services.limiter.hit(SETUP_GUESSES, address)
            shown = await _read(operations.SET_UP, request)
            services.setup.check(shown.code)
            made = await services.administrators.set_up(shown.admin, shown.password, address, request_id(request.scope))
        except AiProjectError as error:
            return error_response(request, error)
        services.setup.close()
        note(request.scope, administrator=made.admin_id, outcome="ok")
        return succeed(request, Success.FIRST_ADMIN_CREATED)

    async def refresh(self, call: Call) -> Out:
        """Give a new access token for the refresh token."""
        token = self._services.administrators.renew(call.session)
        return envelope(Success.ADMIN_TOKEN_RENEWED, RenewedToken(access_token=token))

    async def logout(self, call: Call) -> Out:
        """End the session."""
        await self._services.administrators.logout(call.session, call.origin)
        return envelope(Success.ADMIN_LOGGED_OUT)

    # -- the model ------------------------------------------------------------------------------------------------

    async def try_model(self, call: Call) -> Out:
        """Ask the text model once."""
        await self._services.limiter.hit(MODEL_TRIALS, str(call.session.administrator.admin_id))
        question = trial_request(await _read(operations.TRIAL, call.request))
        said = await self._services.trial.ask(question, call.origin)
        return envelope(Success.TRIAL_ANSWERED, WholeAnswer(content=said.content, consume_token=said.consumed))

    # -- accounts -------------------------------------------------------------------------------------------------

    async def add_user(self, call: Call) -> Out:
        """Open an account with just the quota that is given."""
        new = await _read(operations.ADD_USER, call.request)
        profile = NewProfile(
            username=new.username,
            password=new.password,
            email=new.email or "",
            academy=new.academy,
            tokens=new.tokens,
            pic_times=new.pictimes,
        )
        await self._services.users.add(profile, call.origin)
        return envelope(Success.USER_ADDED)

    async def modify_user(self, call: Call) -> Out:
        """Change an account."""
        change = await _read(operations.MODIFY_USER, call.request)
        new = change.new_user_info
        profile = NewProfile(
            username=new.new_username,
            password=new.new_password,
            email=new.new_email or "",
            academy=new.new_academy,
            tokens=new.new_tokens,
            pic_times=new.new_pictimes,
        )
        await self._services.users.modify(change.target_user, profile, call.origin)
        return envelope(Success.USER_CHANGED)

    async def delete_user(self, call: Call) -> Out:
        """Delete an account: what names its owner is erased, the ledger stays."""
        target = (await _read(operations.DELETE_USER, call.request)).target_username
        gone = await self._services.users.delete(target, call.origin)
        return envelope(Success.DELETED, params={"name": gone.username})

    # -- administrators -------------------------------------------------------------------------------------------

    async def add_administrator(self, call: Call) -> Out:
        """Make an administrator."""
        new = await _read(operations.ADD_ADMINISTRATOR, call.request)
        await self._services.administrators.add(new.admin, new.password, new.role or Role.ADMIN, call.origin)
        return envelope(Success.ADMIN_ADDED)

    async def modify_administrator(self, call: Call) -> Out:
        """Change an administrator's name, password or role."""
        wanted = await _read(operations.MODIFY_ADMINISTRATOR, call.request)
        await self._services.administrators.modify(
            wanted.target_admin,
            Change(wanted.new_name, wanted.new_password, wanted.new_role),
            call.session.administrator,
            call.origin,
            session_id=call.session.session_id,
        )
        return envelope(Success.USER_CHANGED)

    async def delete_administrator(self, call: Call) -> Out:
        """Remove an administrator who is no owner."""
        target = (await _read(operations.DELETE_ADMINISTRATOR, call.request)).target_admin
        gone = await self._services.administrators.remove(target, call.origin, owners_too=False)
        return envelope(Success.DELETED, params={"name": gone.name})

    # -- vouchers -------------------------------------------------------------------------------------------------

    async def add_voucher(self, call: Call) -> Out:
        """Make a voucher."""
        new = await _read(operations.ADD_VOUCHER, call.request)
        await self._services.vouchers.add(
            name=new.token_name,
            code=new.token_id,
            tokens=new.token_limit.tokens,
            pic_times=new.token_limit.pictimes,
            audience=new.token_range,
            origin=call.origin,
        )
        return envelope(Success.VOUCHER_CREATED)

    async def modify_voucher(self, call: Call) -> Out:
        """Change a voucher: what it is worth from now on, for whom, and whether it may be redeemed."""
        wanted = await _read(operations.MODIFY_VOUCHER, call.request)
        await self._services.vouchers.modify(
            wanted.target_token,
            tokens=wanted.new_token_limit.tokens,
            pic_times=wanted.new_token_limit.pictimes,
            audience=wanted.new_token_range,
            is_available=wanted.new_token_is_available,
            origin=call.origin,
        )
        return envelope(Success.VOUCHER_CHANGED)

    async def delete_voucher(self, call: Call) -> Out:
        """Remove a voucher; what was redeemed stays."""
        target = (await _read(operations.DELETE_VOUCHER, call.request)).target_token
        gone = await self._services.vouchers.delete(target, origin=call.origin)
        return envelope(Success.DELETED, params={"name": gone.name or target.strip()})

    async def switch_voucher(self, call: Call) -> Out:
        """Switch a voucher on or off. A GET that changes something, since the contract has it so.

        No other page can make a browser send it: it needs the ``Authorization`` header.
        """
        wanted = _query(SwitchVoucher, call)
        await self._services.vouchers.set_available(wanted.token_name, wanted.is_available, origin=call.origin)
        return envelope(Success.VOUCHER_ENABLED if wanted.is_available else Success.VOUCHER_DISABLED)

    # -- lists ----------------------------------------------------------------------------------------------------

    async def show_page(self, call: Call) -> Out:
        """List rows of a list, in the order in which they were made."""
        table = _table(call)
        wanted = _query(TableQuery, call)
        data = await self._services.tables.page(
            table,
            start=wanted.start,
            limit=wanted.query_range,
            search=wanted.search,
            shows_codes=_shows_codes(call),
        )
        return envelope(Success.ROWS_FOUND, TablePage(data=data), {"count": len(data)})

    async def count_rows(self, call: Call) -> Out:
        """Count the rows of a list."""
        table = _table(call)
        wanted = _query(CountQuery, call)
        count = await self._services.tables.count(table, search=wanted.search, shows_codes=_shows_codes(call))
        return envelope(Success.ROWS_FOUND, TableCount(total_count=count), {"count": count})

    async def show_row(self, call: Call) -> Out:
        """Show the row of a list that has a name."""
        table = _table(call)
        target = _query(RowQuery, call).target_name
        row = await self._services.tables.row(table, target, shows_codes=_shows_codes(call))
        return envelope(Success.ROW_FOUND, OneRow(data=row), {"name": target})

    # -- the audit log --------------------------------------------------------------------------------------------

    async def show_audit(self, call: Call) -> Out:
        """List entries of the audit log, the newest first."""
        wanted = _query(AuditQuery, call)
        # One more, to know whether there are more.
        found = await self._services.audit.newest(_filter(wanted), limit=wanted.limit + 1)
        page = found[: wanted.limit]
        body = AuditPage(
            data=[AuditRecord(**exported(entry)) for entry in page],
            next=page[-1].seq if len(found) > wanted.limit else None,
        )
        return envelope(Success.ROWS_FOUND, body, {"count": len(page)})

    async def export_audit(self, call: Call) -> Response:
        """Write all entries that fit the filters out, the oldest first."""
        wanted = _query(AuditExportQuery, call)
        form = wanted.format
        await self._services.audit.record(call.origin, "audit.export", "audit log", after={"format": form})
        return StreamingResponse(
            self._services.audit.export(form, _filter(wanted)),
            media_type=EXPORT_MEDIA_TYPES[form],
            headers={
                "Cache-Control": "no-store",
                "Content-Disposition": f'attachment; filename="audit.{form}"',
                "X-Content-Type-Options": "nosniff",
            },
        )


async def _read(operation: BodyOperation[In], request: Request) -> In:
    """Return the body of a request.

    Raises:
        Malformed: it is no JSON object, or a field is missing or of another type. The console's answer does not say
            which, as the original's did not; the log's line does.
        BodyTooLarge: see `BodyOperation.read`.
    """
    try:
        return await operation.read(request)
    except InvalidInput as error:
        raise Malformed(error.detail, **error.params) from None


def _query(kind: type[In], call: Call) -> In:
    """Return the parameters of a query.

    Raises:
        Malformed: as for `_read`.
    """
    try:
        return read_fields_as(kind, call.request.query_params)
    except InvalidInput as error:
        raise Malformed(error.detail, **error.params) from None


def _filter(wanted: AuditFilters) -> AuditFilter:
    names = structs.asdict(wanted)
    return AuditFilter(
        **{name: names[name] for name in ("actor", "action", "target", "request_id", "since", "until")},
        before_seq=wanted.before,
    )


def _table(call: Call) -> str:
    """Return the list's name. Looked at before the other parameters, as in the original."""
    name = call.request.query_params.get("table", "")
    if name not in TABLES:
        raise TableUnknown
    return name


def _shows_codes(call: Call) -> bool:
    return call.session.administrator.role is not Role.AUDITOR
