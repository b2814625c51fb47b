"""Who did what: an append-only log of administrative acts, each entry sealed by the next."""

from aiproject.audit.model import Actor, ActorKind, AuditEntry, Origin
from aiproject.audit.service import AuditFilter, AuditLog
from aiproject.audit.store import record

__all__ = ["Actor", "ActorKind", "AuditEntry", "AuditFilter", "AuditLog", "Origin", "record"]
