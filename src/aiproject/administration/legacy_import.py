"""The import of administrators, vouchers and redemptions from the tables of the legacy application.

Its tables ``admin``, ``token`` and ``user_token`` are read and stay as they are. Passwords are copied in their legacy
form (MD5 with a suffix) and stored as argon2id at the first login. A voucher's code is the legacy ``Id``, which users
redeem; ``Name`` is the administrators' name of it. An account that has redeemed a voucher there cannot redeem it here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from aiproject.accounts.core.model import MAX_NAME_LENGTH, is_askable
from aiproject.adapters.db.engine import Connection, Database
from aiproject.adapters.db.schema import NAME_KEY_LENGTH, PASSWORD_HASH_LENGTH, name_key, new_account_id
from aiproject.administration import legacy_store, store
from aiproject.administration.model import Administrator, Role
from aiproject.audit.model import AuditContext, Fact
from aiproject.audit.store import record
from aiproject.errors import InvalidInput
from aiproject.messages.commands import Line
from aiproject.messages.formatting import Message
from aiproject.vouchers import store as voucher_store
from aiproject.vouchers.model import Voucher, check_new_voucher, normal_code
from aiproject.vouchers.service import facts as voucher_facts

__all__ = ["ImportReport", "import_legacy"]


@dataclass(slots=True)
class ImportReport:
    """What was imported, and a message for each row that was not."""

    administrators: int = 0
    vouchers: int = 0
    redemptions: int = 0
    left: list[Message] = field(default_factory=list)


async def import_legacy(database: Database, origin: AuditContext) -> ImportReport:
    """Import what is not here yet, all in one transaction; harmless when repeated."""
    return await database.transact(_import_legacy, origin)


async def _import_legacy(connection: Connection, origin: AuditContext) -> ImportReport:
    done = ImportReport()
    for row in await legacy_store.rows(connection, "admin"):
        await _administrator(connection, row, origin, done)
    for row in await legacy_store.rows(connection, "token"):
        await _voucher(connection, row, origin, done)
    await _redemptions(connection, origin, done)
    return done


async def _administrator(
    connection: Connection, row: Mapping[str, Any], origin: AuditContext, done: ImportReport
) -> None:  # fmt: skip
    name, password = str(row["Admin"] or "").strip(), str(row["PassWord"] or "")
    key = name_key(name) if is_askable(name) else ""
    if not key or len(name) > MAX_NAME_LENGTH or len(key) > NAME_KEY_LENGTH:
        done.left.append(Message(Line.LEFT_ADMINISTRATOR_UNNAMED))
    elif not 0 < len(password) <= PASSWORD_HASH_LENGTH:
        done.left.append(Message(Line.LEFT_ADMINISTRATOR_WITHOUT_PASSWORD, {"name": name}))
    elif await store.by_name(connection, name) is not None:
        done.left.append(Message(Line.LEFT_ADMINISTRATOR_THERE, {"name": name}))
    else:
        now = datetime.now(UTC)
        role = Role.OWNER if row["Auth"] == 1 else Role.ADMIN
        new = Administrator(new_account_id(now), name, role, now, None)
        await store.add(connection, new, name_key=key, password=password)
        after: dict[str, Fact] = {"admin": new.admin_id, "role": str(role)}
        await record(connection, origin, "admin.adopt", name, after=after)
        done.administrators += 1


async def _voucher(connection: Connection, row: Mapping[str, Any], origin: AuditContext, done: ImportReport) -> None:
    name = _text(row["Name"])
    try:
        new = check_new_voucher(
            name=name or None,
            code=_text(row["Id"]),
            tokens=int(row["Tokens"] or 0),
            pic_times=int(row["PicTimes"] or 0),
            audience=row["TokenRange"],
            expires_at=None,
            max_uses=None,
            now=datetime.now(UTC),
        )
    except InvalidInput as error:
        done.left.append(Message(Line.LEFT_VOUCHER_REFUSED, {"name": name, "reason": error}))
        return
    if await _taken_over(connection, new.code, name) is not None:
        done.left.append(Message(Line.LEFT_VOUCHER_THERE, {"name": name}))
        return
    await voucher_store.add(connection, [replace(new, is_available=bool(row["Available"]))])
    after: dict[str, Fact] = {**voucher_facts(new), "is_available": bool(row["Available"])}
    await record(connection, origin, "voucher.adopt", new.title, after=after)
    done.vouchers += 1


async def _taken_over(
    connection: Connection, code: str, name: str, *, is_locked: bool = False
) -> Voucher | None:  # fmt: skip
    """Return the voucher that a legacy one was imported as: by its code, or by its name, which earlier releases took
    for the code.
    """
    found = await voucher_store.find(connection, code, is_locked=is_locked) if code else None
    return found or await voucher_store.find_named(connection, name, is_locked=is_locked)


# -- who redeemed what -------------------------------------------------------------------------------------------------


async def _redemptions(connection: Connection, origin: AuditContext, done: ImportReport) -> None:
    """Note who redeemed in the legacy application what has been imported, so that nobody redeems it twice."""
    try:
        pairs = await legacy_store.redemptions(connection)
    except legacy_store.ColumnsUnknown:
        done.left.append(Message(Line.LEFT_REDEMPTIONS_TABLE, {"table": legacy_store.REDEMPTIONS}))
        return
    redeemers: dict[str, set[str]] = {}
    for uuid, token in pairs:
        redeemers.setdefault(_text(token), set()).add(_text(uuid))
    if not redeemers:
        return
    accounts = await legacy_store.account_ids(connection, set().union(*redeemers.values()))
    names = {_text(row["Id"]): _text(row["Name"]) for row in await legacy_store.rows(connection, "token")}
    unknown = 0
    for token, uuids in sorted(redeemers.items()):
        voucher = await _taken_over(connection, normal_code(token), names.get(token, ""), is_locked=True)
        known = {accounts[uuid] for uuid in uuids & set(accounts)}
        unknown += len(uuids) if voucher is None else len(uuids) - len(known)
        if voucher is not None:
            await _redeemed(connection, voucher, known, origin, done)
    if unknown:
        done.left.append(Message(Line.LEFT_REDEMPTIONS, {"count": unknown}))


async def _redeemed(
    connection: Connection, voucher: Voucher, accounts: set[int], origin: AuditContext, done: ImportReport
) -> None:
    """Note that these accounts have redeemed a voucher that is locked, unless that is known."""
    new = sorted(accounts - await voucher_store.redeemers(connection, voucher.code))
    if not new:
        return
    # Never before the voucher was made: an older redemption counts for an earlier voucher of the same code.
    now = max(datetime.now(UTC), voucher.created_at)
    for account_id in new:
        await voucher_store.record(connection, voucher, account_id, now, is_adopted=True)
    await voucher_store.count_uses(connection, voucher.code, len(new))
    uses = voucher.uses + len(new)
    await record(
        connection, origin, "voucher.adopt_uses", voucher.title, before={"uses": voucher.uses}, after={"uses": uses}
    )
    done.redemptions += len(new)


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()
