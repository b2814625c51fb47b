"""The addresses of the administration; each parses, calls one use case and shapes the answer.

Source: the original's clients, section 8.3, for what the original has; ``setup``, ``logout`` and ``audit`` are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from aiproject.adapters.http.asgi import client_address, note, request_id
from aiproject.adapters.http.errors import error_response
from aiproject.adapters.http.event_limits import EventRateLimiter, Rate
from aiproject.adapters.http.json import answer
from aiproject.administration.auth_guard import Call, Door
from aiproject.administration.fields import (
    audit_filter,
    body_of,
    flag,
    number,
    optional_text,
    parsed,
    profile,
    required_text,
    role,
    units,
)
from aiproject.administration.model import MASK, Malformed, Role
from aiproject.administration.users import People
from aiproject.administration.service import Administrators, Change
from aiproject.administration.setup import SetupGuard
from aiproject.administration.table_store import MAX_ROWS, TABLES, Tables, TableUnknown
from aiproject.administration.trial import ModelTrial, trial_request
from aiproject.audit.service import EXPORT_MEDIA_TYPES, AuditLog, exported
from aiproject.codes import Success
from aiproject.errors import AiProjectError
from aiproject.protocols.legacy import success
from aiproject.vouchers.service import Vouchers

__all__ = ["AdministrationRoutes", "Services"]

MODEL_TRIALS = Rate("model trial of an administrator", "20/minute")
"""Nobody pays for them, so somebody has to stop a console that was left running."""

SETUP_GUESSES = Rate("guess of the setup code", "10/minute")
"""By address, beside the few guesses that a code allows at all."""

DEFAULT_AUDIT_ROWS = 100
MAX_OFFSET = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Services:
    """What the addresses call."""

    administrators: Administrators
    people: People
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

    def __init__(self, rooms: Services, *, app_id: str) -> None:
        self._rooms = rooms
        self._app_id = app_id

    def routes(self) -> Sequence[Route]:
        """Return all of them."""
        door = Door(self._rooms.administrators)
        return [
            Route("/admin/login", self.login, methods=["POST"]),
            Route("/admin/setup", self.set_up, methods=["POST"]),
            Route("/admin/refresh", door.behind(self.refresh, kind="refresh"), methods=["GET"]),
            *(
                Route(f"/admin/{path}", door.behind(handler), methods=[method])
                for method, path, handler in (
                    ("POST", "logout", self.logout),
                    ("POST", "console_test", self.console_test),
                    ("POST", "add_normal_user", self.add_user),
                    ("POST", "modify_normal_user", self.modify_user),
                    ("POST", "delete_normal_user", self.delete_user),
                    ("POST", "add_admin", self.add_admin),
                    ("POST", "modify_admin", self.modify_admin),
                    ("POST", "delete_admin", self.delete_admin),
                    ("POST", "add_token", self.add_token),
                    ("POST", "modify_token", self.modify_token),
                    ("POST", "delete_token", self.delete_token),
                    ("GET", "control_token", self.control_token),
                    ("GET", "query_table", self.query_table),
                    ("GET", "query_table_count", self.query_table_count),
                    ("GET", "query_table_data", self.query_table_data),
                    ("GET", "audit", self.audit),
                    ("GET", "audit/export", self.export_audit),
                )
            ),
        ]

    # -- coming and going -----------------------------------------------------------------------------------------

    async def login(self, request: Request) -> Response:
        """Open a session: ``admin``, ``password``; two JWTs, and the vendor's keys, masked, which the console reads."""
        try:
            fields = await body_of(request)
            signed_in = await self._rooms.administrators.login(
                required_text(fields, "admin"),
                required_text(fields, "password"),
                client_address(request.scope),
                request_id(request.scope),
            )
        except AiProjectError as error:
            return error_response(request, error)
        note(request.scope, administrator=signed_in.administrator.admin_id, outcome="ok")
        return answer(
            success(
                Success.ADMIN_LOGGED_IN,
                access_token=signed_in.access_token,
                refresh_token=signed_in.refresh_token,
                app_info={"app_id": f"{self._app_id[:2]}{MASK}", "api_key": MASK, "api_secret": MASK},
                role=str(signed_in.administrator.role),
            )
        )

    async def set_up(self, request: Request) -> Response:
        """Make the first administrator: ``code`` as the terminal shows it, ``admin``, ``password``."""
        rooms = self._rooms
        address = client_address(request.scope)
        try:
            await rooms.limiter.hit(SETUP_GUESSES, address)
            fields = await body_of(request)
            code, name = required_text(fields, "code"), required_text(fields, "admin")
            password = required_text(fields, "password")
            rooms.setup.check(code)
            made = await rooms.administrators.set_up(name, password, address, request_id(request.scope))
        except AiProjectError as error:
            return error_response(request, error)
        rooms.setup.close()
        note(request.scope, administrator=made.admin_id, outcome="ok")
        return answer(success(Success.FIRST_ADMIN_CREATED))

    async def refresh(self, call: Call) -> Mapping[str, Any]:
        """Give a new access token for the refresh token."""
        return success(Success.ADMIN_TOKEN_RENEWED, access_token=self._rooms.administrators.renew(call.session))

    async def logout(self, call: Call) -> Mapping[str, Any]:
        """End the session."""
        await self._rooms.administrators.logout(call.session, call.origin)
        return success(Success.ADMIN_LOGGED_OUT)

    # -- the model ------------------------------------------------------------------------------------------------

    async def console_test(self, call: Call) -> Mapping[str, Any]:
        """Ask the text model once: ``dialog``, ``limit``, ``top_k``, ``temperature``."""
        await self._rooms.limiter.hit(MODEL_TRIALS, str(call.session.administrator.admin_id))
        fields = await body_of(call.request)
        question = trial_request(
            fields.get("dialog"), fields.get("limit"), fields.get("top_k"), fields.get("temperature")
        )  # fmt: skip
        said = await self._rooms.trial.ask(question, call.origin)
        return success(Success.TRIAL_ANSWERED, content=said.content, consume_token=said.consumed)

    # -- accounts -------------------------------------------------------------------------------------------------

    async def add_user(self, call: Call) -> Mapping[str, Any]:
        """Open an account with just the quota that is given."""
        fields = await body_of(call.request)
        new = profile(fields, "")
        required_text(fields, "password")
        await self._rooms.people.add(new, call.origin)
        return success(Success.USER_ADDED)

    async def modify_user(self, call: Call) -> Mapping[str, Any]:
        """Change an account: ``target_user``, and what it shall be in ``new_user_info``."""
        fields = await body_of(call.request)
        target = required_text(fields, "target_user")
        await self._rooms.people.modify(target, profile(parsed(fields.get("new_user_info")), "new_"), call.origin)
        return success(Success.USER_CHANGED)

    async def delete_user(self, call: Call) -> Mapping[str, Any]:
        """Remove the person behind ``target_username``."""
        gone = await self._rooms.people.delete(
            required_text(await body_of(call.request), "target_username"), call.origin
        )  # fmt: skip
        return success(Success.DELETED, {"name": gone.username})

    # -- administrators -------------------------------------------------------------------------------------------

    async def add_admin(self, call: Call) -> Mapping[str, Any]:
        """Make an administrator: ``admin``, ``password`` and, beyond the original, ``role``."""
        fields = await body_of(call.request)
        await self._rooms.administrators.add(
            required_text(fields, "admin"),
            required_text(fields, "password"),
            role(fields, "role") or Role.ADMIN,
            call.origin,
        )
        return success(Success.ADMIN_ADDED)

    async def modify_admin(self, call: Call) -> Mapping[str, Any]:
        """Change ``target_admin``: ``new_name``, ``new_password`` and, beyond the original, ``new_role``."""
        fields = await body_of(call.request)
        change = Change(
            optional_text(fields, "new_name"), optional_text(fields, "new_password"), role(fields, "new_role")
        )  # fmt: skip
        await self._rooms.administrators.modify(
            required_text(fields, "target_admin"),
            change,
            call.session.administrator,
            call.origin,
            session_id=call.session.session_id,
        )
        return success(Success.USER_CHANGED)

    async def delete_admin(self, call: Call) -> Mapping[str, Any]:
        """Remove ``target_admin``, who is no owner."""
        target = required_text(await body_of(call.request), "target_admin")
        gone = await self._rooms.administrators.remove(target, call.origin, owners_too=False)
        return success(Success.DELETED, {"name": gone.name})

    # -- vouchers -------------------------------------------------------------------------------------------------

    async def add_token(self, call: Call) -> Mapping[str, Any]:
        """Make a voucher: ``token_name``, ``token_limit`` (``tokens``, ``pictimes``), ``token_range`` (an academy).

        Beyond the original: ``token_id``, a code of the operator's own. The list shows the code as ``Id``.
        """
        fields = await body_of(call.request)
        limit = parsed(fields.get("token_limit"))
        await self._rooms.vouchers.add(
            name=required_text(fields, "token_name"),
            code=optional_text(fields, "token_id"),
            tokens=units(limit, "tokens", default=0),
            pic_times=units(limit, "pictimes", default=0),
            audience=optional_text(fields, "token_range", must_be_there=True),
            origin=call.origin,
        )
        return success(Success.VOUCHER_CREATED)

    async def modify_token(self, call: Call) -> Mapping[str, Any]:
        """Change a voucher: what it is worth from now on, for whom, and whether it may be redeemed."""
        fields = await body_of(call.request)
        limit = parsed(fields.get("new_token_limit"))
        await self._rooms.vouchers.modify(
            required_text(fields, "target_token"),
            tokens=units(limit, "tokens"),
            pic_times=units(limit, "pictimes"),
            audience=optional_text(fields, "new_token_range", must_be_there=True),
            is_available=flag(fields.get("new_token_is_available")),
            origin=call.origin,
        )
        return success(Success.VOUCHER_CHANGED)

    async def delete_token(self, call: Call) -> Mapping[str, Any]:
        """Remove a voucher; what was redeemed stays."""
        target = required_text(await body_of(call.request), "target_token")
        gone = await self._rooms.vouchers.delete(target, origin=call.origin)
        return success(Success.DELETED, {"name": gone.name or target.strip()})

    async def control_token(self, call: Call) -> Mapping[str, Any]:
        """Switch a voucher on or off. A GET that changes something, since the contract has it so.

        No other page can make a browser send it: it needs the ``Authorization`` header.
        """
        query = call.request.query_params
        is_available = flag(query.get("is_available"))
        await self._rooms.vouchers.set_available(
            required_text(query, "token_name"), is_available, origin=call.origin
        )  # fmt: skip
        return success(Success.VOUCHER_ENABLED if is_available else Success.VOUCHER_DISABLED)

    # -- lists ----------------------------------------------------------------------------------------------------

    async def query_table(self, call: Call) -> Mapping[str, Any]:
        """List rows of ``table``: ``query_range`` of them from ``start`` on; ``search`` is beyond the original."""
        query = call.request.query_params
        data = await self._rooms.tables.page(
            _table(query),
            start=number(query, "start", 0, most=MAX_OFFSET),
            limit=number(query, "query_range", 0, most=MAX_OFFSET),
            search=query.get("search", ""),
            shows_codes=_shows_codes(call),
        )
        return success(Success.ROWS_FOUND, {"count": len(data)}, data=data)

    async def query_table_count(self, call: Call) -> Mapping[str, Any]:
        """Count the rows of ``table``."""
        query = call.request.query_params
        count = await self._rooms.tables.count(
            _table(query), search=query.get("search", ""), shows_codes=_shows_codes(call)
        )
        return success(Success.ROWS_FOUND, {"count": count}, total_count=count)

    async def query_table_data(self, call: Call) -> Mapping[str, Any]:
        """Show the row of ``table`` that is called ``target_name``."""
        query = call.request.query_params
        target = query.get("target_name", "")
        row = await self._rooms.tables.row(_table(query), target, shows_codes=_shows_codes(call))
        return success(Success.ROW_FOUND, {"name": target}, data=row)

    # -- the audit log --------------------------------------------------------------------------------------------

    async def audit(self, call: Call) -> Mapping[str, Any]:
        """List entries, the newest first: ``limit`` of them, with numbers below ``before``, and filters."""
        query = call.request.query_params
        limit = number(query, "limit", 1, most=MAX_ROWS, default=DEFAULT_AUDIT_ROWS)
        found = await self._rooms.audit.newest(audit_filter(query), limit=limit + 1)
        page = found[:limit]
        return success(
            Success.ROWS_FOUND,
            {"count": len(page)},
            data=[exported(entry) for entry in page],
            next=page[-1].seq if len(found) > limit else None,
        )

    async def export_audit(self, call: Call) -> Response:
        """Write all entries that fit the filters out, the oldest first: ``format`` is ``jsonl`` or ``csv``."""
        query = call.request.query_params
        form = query.get("format", "jsonl")
        if form != "csv" and form != "jsonl":
            raise Malformed
        wanted = audit_filter(query)
        await self._rooms.audit.record(call.origin, "audit.export", "audit log", after={"format": form})
        lines = self._rooms.audit.export("csv" if form == "csv" else "jsonl", wanted)
        return StreamingResponse(
            lines,
            media_type=EXPORT_MEDIA_TYPES["csv" if form == "csv" else "jsonl"],
            headers={
                "Cache-Control": "no-store",
                "Content-Disposition": f'attachment; filename="audit.{form}"',
                "X-Content-Type-Options": "nosniff",
            },
        )


def _table(query: Mapping[str, str]) -> str:
    name = query.get("table", "")
    if name not in TABLES:
        raise TableUnknown
    return name


def _shows_codes(call: Call) -> bool:
    return call.session.administrator.role is not Role.AUDITOR
