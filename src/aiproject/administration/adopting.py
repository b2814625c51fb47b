"""Taking over the administrators and codes of an original AiProject database, from its tables ``admin`` and ``token``.

The tables are read and left as they are. Passwords come over in their old form (MD5 with a suffix) and are stored as
argon2id at the first login. Whoever redeemed which code is not taken over: the original's record of that names its own
keys, so a code that was used there can be redeemed once more here.

Source of tables and columns: the original's clients, section 8.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.accounts.model import MAX_NAME_LENGTH, is_askable
from aiproject.adapters.database import Database, retry_transient
from aiproject.adapters.schema import NAME_KEY_LENGTH, PASSWORD_HASH_LENGTH, name_key, new_account_id
from aiproject.administration import store
from aiproject.administration.model import Administrator, Role
from aiproject.audit import Fact, Origin, record
from aiproject.errors import InvalidInput
from aiproject.vouchers import store as voucher_store
from aiproject.vouchers.model import check_new_voucher, masked
from aiproject.vouchers.service import facts as voucher_facts

__all__ = ["Adopted", "adopt"]

COLUMNS = {
    "admin": ("Auth", "Admin", "PassWord"),
    "token": ("Tokens", "PicTimes", "TokenRange", "Name", "Available"),
}


@dataclass(slots=True)
class Adopted:
    """What was taken over, and a sentence for each row that was not."""

    administrators: int = 0
    vouchers: int = 0
    left: list[str] = field(default_factory=list)


async def adopt(database: Database, origin: Origin) -> Adopted:
    """Take over what is not here yet, all in one transaction; harmless when repeated."""

    async def once() -> Adopted:
        done = Adopted()
        async with database.begin() as connection:
            for row in await _rows(connection, "admin"):
                await _administrator(connection, row, origin, done)
            for row in await _rows(connection, "token"):
                await _voucher(connection, row, origin, done)
        return done

    return await retry_transient(once)


async def _rows(connection: AsyncConnection, name: str) -> list[Mapping[str, Any]]:
    """Return the rows of one of the original's tables; none where there is no such table."""

    def columns(sync: sa.Connection) -> set[str]:
        inspector = sa.inspect(sync)
        return {column["name"] for column in inspector.get_columns(name)} if inspector.has_table(name) else set()

    if not set(COLUMNS[name]) <= await connection.run_sync(columns):
        return []
    wanted: list[sa.ColumnClause[Any]] = [sa.column(each) for each in COLUMNS[name]]
    statement = sa.select(*wanted).select_from(sa.table(name))
    return [dict(row) for row in (await connection.execute(statement)).mappings()]


async def _administrator(
    connection: AsyncConnection, row: Mapping[str, Any], origin: Origin, done: Adopted
) -> None:  # fmt: skip
    name, password = str(row["Admin"] or "").strip(), str(row["PassWord"] or "")
    key = name_key(name) if is_askable(name) else ""
    if not key or len(name) > MAX_NAME_LENGTH or len(key) > NAME_KEY_LENGTH:
        done.left.append("an administrator whose name cannot be used")
    elif not 0 < len(password) <= PASSWORD_HASH_LENGTH:
        done.left.append(f"administrator {name}: without a usable password")
    elif await store.by_name(connection, name) is not None:
        done.left.append(f"administrator {name}: there is one of this name")
    else:
        now = datetime.now(UTC)
        role = Role.OWNER if row["Auth"] == 1 else Role.ADMIN
        new = Administrator(new_account_id(now), name, role, now, None)
        await store.add(connection, new, name_key=key, password=password)
        after: dict[str, Fact] = {"admin": new.admin_id, "role": str(role)}
        await record(connection, origin, "admin.adopt", name, after=after)
        done.administrators += 1


async def _voucher(connection: AsyncConnection, row: Mapping[str, Any], origin: Origin, done: Adopted) -> None:
    tokens, pic_times = int(row["Tokens"] or 0), int(row["PicTimes"] or 0)
    try:
        new = check_new_voucher(
            code=str(row["Name"] or ""),
            tokens=tokens,
            pic_times=pic_times,
            audience=row["TokenRange"],
            expires_at=None,
            max_uses=None,
            now=datetime.now(UTC),
        )
    except InvalidInput as error:
        done.left.append(f"a code: {error}")
        return
    if await voucher_store.find(connection, new.code) is not None:
        done.left.append(f"code {masked(new.code)}: there is one of this name")
        return
    await voucher_store.add(connection, [replace(new, is_available=bool(row["Available"]))])
    after: dict[str, Fact] = {**voucher_facts(new), "is_available": bool(row["Available"])}
    await record(connection, origin, "voucher.adopt", masked(new.code), after=after)
    done.vouchers += 1
