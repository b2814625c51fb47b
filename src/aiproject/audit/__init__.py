"""Who did what: an append-only log of administrative acts, each entry sealed by the next."""

from aiproject.audit.model import CHANGED, Actor, ActorKind, AuditEntry, Fact, Origin, account_origin, server_origin
from aiproject.audit.service import AuditFilter, AuditLog
from aiproject.audit.store import record

__all__ = [
    "CHANGED",
    "Actor",
    "ActorKind",
    "AuditEntry",
    "AuditFilter",
    "AuditLog",
    "Fact",
    "Origin",
    "account_origin",
    "record",
    "server_origin",
]
