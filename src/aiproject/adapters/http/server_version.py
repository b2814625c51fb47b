"""Whether the installed uvicorn is one that this release was tested with.

The connection (`aiproject.adapters.http.http1`) and the server (`aiproject.server`) use classes of uvicorn that its
documentation does not promise to keep: its configuration, its server with the state that connections share, and its
protocol for websockets. So the range stands in ``pyproject.toml``, which the tests' lock file obeys, and nowhere else;
a start with another version says so instead of failing somewhere later.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata

from aiproject.adapters.log import get_logger
from aiproject.codes import Detail
from aiproject.errors import Misconfigured

__all__ = ["check_server_version"]

log = get_logger("server")

_UVICORN = re.compile(r"uvicorn\s*(?:\[[^\]]*\])?\s*([<>=!~][^;]*)?(?:;.*)?")
_BOUND = re.compile(r"(>=|<)\s*([0-9][0-9.]*)")


def check_server_version(requirements: Iterable[str] | None = None, installed: str | None = None) -> None:
    """Check uvicorn's version.

    Args:
        requirements: our own, as a package's metadata has them; ``None``: those of the installed AiProject.
        installed: ``None``: that of the installed uvicorn.

    Raises:
        Misconfigured: it is outside of the range.
    """
    if requirements is None:
        try:
            requirements = metadata.requires("aiproject") or ()
        except metadata.PackageNotFoundError:
            log.warning("run without being installed: the version of uvicorn is not checked")
            return
    version = metadata.version("uvicorn") if installed is None else installed
    for requirement in requirements:
        found = _UVICORN.fullmatch(requirement.strip())
        if found is None:
            continue
        bounds = _BOUND.findall(found[1] or "")
        if not all(_holds(version, operator, bound) for operator, bound in bounds):
            raise Misconfigured(Detail.SERVER_VERSION_UNSUPPORTED, version=version, range=(found[1] or "").strip())


def _holds(version: str, operator: str, bound: str) -> bool:
    is_at_least = _release(version) >= _release(bound)
    return is_at_least if operator == ">=" else not is_at_least


def _release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, without trailing zeros; what follows them (``rc1``) does not count."""
    numbers = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    parts = [int(part) for part in numbers[0].split(".")] if numbers else []
    while parts and not parts[-1]:
        parts.pop()
    return tuple(parts)
