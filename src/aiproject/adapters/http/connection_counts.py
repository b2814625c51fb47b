"""How many connections clients hold in this process, in all and by address."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from aiproject.protocols.addresses import address_group, address_site, normalised

__all__ = ["ConnectionCounts", "ConnectionSlot", "Entry"]

MAX_REFUSALS_PER_ADDRESS = 16
"""Connections of one address that are being refused with a reason; each stays open for two seconds to be read."""

MAX_REFUSALS = 256
"""The same of all addresses. Others are dropped without a response, so that refusals do not exhaust open files."""


class Entry(Enum):
    """What happens to a new connection."""

    ADMITTED = auto()
    TOO_MANY = auto()
    TOO_MANY_OF_ADDRESS = auto()
    DROPPED = auto()


class ConnectionSlot:
    """A connection's slot in the counts. `release` must be called at its end."""

    __slots__ = ("_counted", "entry")

    def __init__(self, entry: Entry, *counted: tuple[_Count, str]) -> None:
        self.entry = entry
        self._counted = counted
        for count, name in counted:
            count.add(name)

    def release(self) -> None:
        """Give the slot back; harmless when repeated."""
        for count, name in self._counted:
            count.remove(name)
        self._counted = ()


class _Count:
    """Connections by address, and their total."""

    def __init__(self) -> None:
        self.total = 0
        self._by_group: dict[str, int] = {}

    def of(self, group: str) -> int:
        return self._by_group.get(group, 0)

    def add(self, group: str) -> None:
        self.total += 1
        self._by_group[group] = self.of(group) + 1

    def remove(self, group: str) -> None:
        self.total -= 1
        left = self._by_group[group] - 1
        if left:
            self._by_group[group] = left
        else:
            del self._by_group[group]  # or every address that ever called would stay in memory


class ConnectionCounts:
    """Admits or refuses new connections.

    Args:
        most: connections at once.
        most_per_address: of one address, of one /64 where it is IPv6. Neither an address nor an IPv6 /48 gets more than
            three quarters of ``most``, so that nobody can hold all. ``None``: no limit by address.
        carries_others: whether an address is a proxy's, whose connections belong to many clients; it has no limit of
            its own.
    """

    def __init__(
        self, most: int, most_per_address: int | None = None, carries_others: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._most = most
        # Rounded up, so that a limit of one connection admits one.
        self._most_per_site = most if most_per_address is None else -(-most * 3 // 4)
        self._most_per_address = most if most_per_address is None else min(most_per_address, self._most_per_site)
        self._carries_others = carries_others
        self._held = _Count()
        self._held_by_sites = _Count()
        self._refused = _Count()

    def __len__(self) -> int:
        return self._held.total

    def enter(self, peer: str | None) -> ConnectionSlot:
        """Count a new connection.

        Args:
            peer: the address at its other end; ``None``: a Unix socket.
        """
        group = "" if peer is None else address_group(peer)
        site = address_site(group) or group
        refusal = self._refusal(peer, group, site)
        if refusal is None:
            return ConnectionSlot(Entry.ADMITTED, (self._held, group), (self._held_by_sites, site))
        if self._refused.of(group) >= MAX_REFUSALS_PER_ADDRESS or self._refused.total >= MAX_REFUSALS:
            return ConnectionSlot(Entry.DROPPED)
        return ConnectionSlot(refusal, (self._refused, group))

    def _refusal(self, peer: str | None, group: str, site: str) -> Entry | None:
        if self._held.total >= self._most:
            return Entry.TOO_MANY
        is_over = self._held.of(group) >= self._most_per_address or self._held_by_sites.of(site) >= self._most_per_site
        if peer is None or not is_over or self._carries_others(normalised(peer)):
            return None
        return Entry.TOO_MANY_OF_ADDRESS
