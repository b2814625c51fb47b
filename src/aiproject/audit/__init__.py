"""Who did what: an append-only log of administrative acts, each entry sealed by the next."""

from aiproject.audit.model import (
    CHANGED,
    Actor,
    ActorKind,
    AuditContext,
    AuditEntry,
    AuditFilter,
    Fact,
    account_origin,
    server_origin,
)
from aiproject.audit.service import AuditLog
from aiproject.audit.store import record

__all__ = [
    "CHANGED",
    "Actor",
    "ActorKind",
    "AuditContext",
    "AuditEntry",
    "AuditFilter",
    "AuditLog",
    "Fact",
    "account_origin",
    "record",
    "server_origin",
]
