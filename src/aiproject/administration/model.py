"""Administrators, their roles, and who may do what; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from aiproject.codes import Detail
from aiproject.errors import InvalidInput, NotSignedIn, Refused

__all__ = [
    "ALLOWED",
    "EVERYBODY",
    "MASK",
    "Administrator",
    "AdministratorUnknown",
    "JwtRefused",
    "Malformed",
    "NotPermitted",
    "Role",
    "is_allowed",
]

MASK = "********"
"""What the console gets in place of a secret that the original sent."""


class Role(StrEnum):
    """What an administrator may do; see `ALLOWED`."""

    OWNER = "owner"
    ADMIN = "admin"
    AUDITOR = "auditor"


EVERYBODY = frozenset(Role)
MANAGERS = frozenset({Role.OWNER, Role.ADMIN})
OWNERS = frozenset({Role.OWNER})

ALLOWED: Mapping[tuple[str, str], frozenset[Role]] = {
    ("GET", "/admin/refresh"): EVERYBODY,
    ("POST", "/admin/logout"): EVERYBODY,
    ("POST", "/admin/console_test"): MANAGERS,
    ("POST", "/admin/add_normal_user"): MANAGERS,
    ("POST", "/admin/modify_normal_user"): MANAGERS,
    ("POST", "/admin/delete_normal_user"): MANAGERS,
    ("POST", "/admin/add_admin"): OWNERS,
    # Everybody: for their own name and password only, see `Administrators.modify`.
    ("POST", "/admin/modify_admin"): EVERYBODY,
    ("POST", "/admin/delete_admin"): OWNERS,
    ("POST", "/admin/add_token"): MANAGERS,
    ("POST", "/admin/modify_token"): MANAGERS,
    ("POST", "/admin/delete_token"): OWNERS,
    ("GET", "/admin/control_token"): MANAGERS,
    ("GET", "/admin/query_table"): EVERYBODY,
    ("GET", "/admin/query_table_count"): EVERYBODY,
    ("GET", "/admin/query_table_data"): EVERYBODY,
    ("GET", "/admin/audit"): frozenset({Role.OWNER, Role.AUDITOR}),
    ("GET", "/admin/audit/export"): frozenset({Role.OWNER, Role.AUDITOR}),
}
"""The one table of who may call what. What is not listed is refused. (``/admin/login`` and ``/admin/setup`` come
before a session.)"""


def is_allowed(role: Role, method: str, path: str) -> bool:
    """Say whether a role may call an address."""
    return role in ALLOWED.get((method, path), frozenset())


@dataclass(frozen=True, slots=True)
class Administrator:
    """Somebody who may administer the server.

    Attributes:
        admin_id: a number that stays when the name changes; no secret.
    """

    admin_id: int
    name: str
    role: Role
    created_at: datetime
    password_changed_at: datetime | None


class JwtRefused(NotSignedIn):
    """A JWT that is missing, malformed, forged, expired, revoked or of the wrong kind.

    Args:
        status: 401 or 422.
        detail: what the original's JWT layer says; its console shows nothing else.
    """

    def __init__(self, status: int, detail: Detail) -> None:
        super().__init__(detail)
        self.status = status


class NotPermitted(Refused):
    """The role does not allow it. The console is answered 200 with a code, unlike for `NotAllowed`."""


class AdministratorUnknown(Refused):
    """There is no administrator of this name, or none whom this call may touch; never says which."""


class Malformed(InvalidInput):
    """A body or a query that lacks a field, or has one of a wrong type."""
