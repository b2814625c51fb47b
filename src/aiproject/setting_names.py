"""Names that are not settings: in the environment and in the settings file.

A misspelt name would leave the default in force, which may be the permissive one (`AIPROJECT_REGISTRATION`). A name
with our prefix that nothing reads is therefore an error, which suggests the name that was probably meant. No function
here reads the environment or a file, and no message quotes a value, because a value may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Final

__all__ = ["PREFIX", "SERVICE_LINK_IN_PORT", "is_service_address", "unknown_keys", "unknown_variables"]

PREFIX: Final = "AIPROJECT_"

NOT_SETTINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "AIPROJECT_CONFIG": "names the settings file, so it cannot stand in it",
        "AIPROJECT_REQUIRE_SERVICES": "read by the tests: a missing database server fails them instead of skipping",
        "AIPROJECT_REQUIRE_AUDIT": "read by tools/audit.py: an unreachable advisory database fails the check",
        "AIPROJECT_TEST_EACH_POWER_CUT": "read by the tests of migrations: breaks upgrades off at every statement",
    }
)
"""Variables with our prefix that are not fields of `Settings`, and why. A server's environment may contain them."""

SERVICE_LINK_IN_PORT: Final = (
    "AIPROJECT_PORT: holds the address of a Kubernetes Service named `aiproject`, not a port; set "
    "`enableServiceLinks: false` in the pod's spec, give AIPROJECT_PORT a number there, or rename the Service"
)

# Kubernetes gives every pod these variables for each Service of its namespace, as Docker's links did: a Service named
# `aiproject-db` defines AIPROJECT_DB_SERVICE_HOST, AIPROJECT_DB_PORT_3306_TCP_ADDR and so on (Kubernetes
# documentation, "Service", section "Environment variables"). The suffix and the value must match, and the Service's
# host must be present, so that no misspelt setting is taken for one.
_LINK_HOST: Final = "_SERVICE_HOST"
_LINK_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://[^\s/@]+:\d+")
_HOST: Final = re.compile(r"[0-9A-Fa-f.:]+")
_NUMBER: Final = re.compile(r"\d+")
_LINK_ENDS: Final = (
    (re.compile(_LINK_HOST), _HOST),
    (re.compile(r"_SERVICE_PORT(_[A-Z0-9_]+)?"), _NUMBER),
    (re.compile(r"_PORT"), _LINK_ADDRESS),
    (re.compile(r"_PORT_\d+_(TCP|UDP|SCTP)"), _LINK_ADDRESS),
    (re.compile(r"_PORT_\d+_(TCP|UDP|SCTP)_PROTO"), re.compile(r"tcp|udp|sctp")),
    (re.compile(r"_PORT_\d+_(TCP|UDP|SCTP)_PORT"), _NUMBER),
    (re.compile(r"_PORT_\d+_(TCP|UDP|SCTP)_ADDR"), _HOST),
)

_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9_].*", re.DOTALL)
_NOT_IN_A_KEY: Final = re.compile(r"[^A-Za-z0-9_.-].*", re.DOTALL)
_MAX_SHOWN: Final = 80  # characters; twice the length of the longest setting's name


def unknown_variables(environment: Mapping[str, str], settings: Collection[str]) -> Iterator[str]:
    """Yield a message for each variable with our prefix that is not a setting, or that is set in two spellings.

    Names are case-insensitive. An empty variable counts as not set, so its name is not checked.

    Args:
        environment: the process's variables.
        settings: the names of the settings, in lower case and without the prefix.
    """
    known = {PREFIX + name.upper() for name in settings}
    services = [name.removesuffix(_LINK_HOST) for name in environment if name.endswith(_LINK_HOST)]
    seen: dict[str, str] = {}
    for name, value in sorted(environment.items()):
        upper = name.upper()
        if not upper.startswith(PREFIX) or not value:
            continue
        if upper in seen:
            yield f"{name}: is set as {seen[upper]}, too; unset one of the two"
        seen[upper] = name
        if upper not in known and upper not in NOT_SETTINGS and not _is_service_link(name, value, services):
            meant = _nearest(
                upper.removeprefix(PREFIX), (name.removeprefix(PREFIX) for name in known | {*NOT_SETTINGS})
            )
            yield f"{_shown(name, _NOT_IN_A_NAME)}: is no setting; {_suggestion(meant and PREFIX + meant)}"


def unknown_keys(key: str, value: object, settings: Collection[str]) -> Iterator[str]:
    """Yield a message for a key of the settings file that is not a setting; for a table, one for each such key in it.

    Args:
        key: as in the file; inside a table, prefixed with the table's name and a dot.
        value: its value in the file; only the keys of tables are examined.
        settings: the keys of the settings; those in tables are prefixed with the tables' names and dots.
    """
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from unknown_keys(f"{key}.{name}", inner, settings)
        return
    table, _, name = key.rpartition(".")
    beside = [known for known in settings if known.rpartition(".")[0] == table]
    note = "" if beside else "settings stand in no table of that name; "
    if not beside:
        beside = [known for known in settings if "." not in known]
    meant = _nearest(name.lower().removeprefix(PREFIX.lower()), (known.rpartition(".")[2] for known in beside))
    suggested = f"{table}.{meant}" if meant and not note and table else meant
    yield f"{_shown(key, _NOT_IN_A_KEY)} is no setting; {note}{_suggestion(suggested)}"


def is_service_address(value: str) -> bool:
    """Whether a value is the address of a Service as Kubernetes writes it into ``…_PORT``: ``tcp://10.0.0.1:80``."""
    return _LINK_ADDRESS.fullmatch(value) is not None


def _is_service_link(name: str, value: str, services: Collection[str]) -> bool:
    ends = (name.removeprefix(service) for service in services if name.startswith(service))
    return any(pattern.fullmatch(end) and values.fullmatch(value) for end in ends for pattern, values in _LINK_ENDS)


def _nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most similar to ``name``; empty if none is similar."""
    return next(iter(get_close_matches(name, sorted(known), n=1)), "")


def _suggestion(meant: str) -> str:
    return f"did you mean {meant}?" if meant else "the documentation lists all settings"


def _shown(name: str, not_in_it: re.Pattern[str]) -> str:
    """Return the part of a name that can be one: the rest may be a value, as in ``NAME value`` for ``NAME=value``."""
    shown = not_in_it.sub("…", name)
    return shown if len(shown) <= _MAX_SHOWN else shown[:_MAX_SHOWN] + "…"
