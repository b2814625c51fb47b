"""Counts of the connections that clients hold in this process, in total and for each address."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from aiproject.protocols.addresses import address_group, address_site, normalised

__all__ = ["ConnectionCounts", "ConnectionSlot", "Entry"]

MAX_REFUSALS_PER_ADDRESS = 16
"""Connections of one address that are being refused with a reason. Each stays open for two seconds, so that the client
can read it."""

MAX_REFUSALS = 256
"""The same for all addresses together. Further connections are dropped without a response, so that refusals do not
exhaust the file descriptors."""


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
        """Release the slot. A second call does nothing."""
        for count, name in self._counted:
            count.remove(name)
        self._counted = ()


class _Count:
    """The number of connections of each address, and their total."""

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
            del self._by_group[group]  # otherwise every address that ever called would stay in memory


class ConnectionCounts:
    """Admits or refuses new connections.

    Args:
        most: maximum number of simultaneous connections.
        most_per_address: the maximum for one address (one /64 of IPv6). Neither an address nor an IPv6 /48 gets more
            than three quarters of ``most``, so that no single client can hold all connections. ``None``: no limit for
            each address.
        carries_others: returns whether an address is a proxy's, whose connections belong to many clients; such an
            address has no limit of its own.
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
            peer: the address of the client's end; ``None``: a Unix socket.
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
