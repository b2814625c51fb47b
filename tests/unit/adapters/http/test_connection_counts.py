"""Who gets a connection, in all and by address."""

from __future__ import annotations

import pytest

from aiproject.adapters.http.connection_counts import MAX_REFUSALS, MAX_REFUSALS_PER_ADDRESS, ConnectionCounts, Entry
from aiproject.protocols.forwarding import TrustedProxies


def entries(counts: ConnectionCounts, peer: str | None, times: int) -> list[Entry]:
    return [counts.enter(peer).entry for _ in range(times)]


def test_an_address_over_its_limit_is_refused_and_others_are_not() -> None:
    counts = ConnectionCounts(100, 2)
    assert entries(counts, "192.0.2.1", 3) == [Entry.ADMITTED, Entry.ADMITTED, Entry.TOO_MANY_OF_ADDRESS]
    assert entries(counts, "192.0.2.2", 1) == [Entry.ADMITTED]


def test_an_ipv6_address_counts_with_its_network() -> None:
    counts = ConnectionCounts(100, 1)
    assert entries(counts, "2001:db8::1", 1) == [Entry.ADMITTED]
    assert entries(counts, "2001:db8::2", 1) == [Entry.TOO_MANY_OF_ADDRESS]
    assert entries(counts, "2001:db8:0:1::1", 1) == [Entry.ADMITTED]
    assert entries(counts, "192.0.2.1", 1) == [Entry.ADMITTED]
    assert entries(counts, "::ffff:192.0.2.1", 1) == [Entry.TOO_MANY_OF_ADDRESS]


def test_no_address_holds_all_whatever_its_limit() -> None:
    counts = ConnectionCounts(8, 1000)
    assert entries(counts, "192.0.2.1", 8).count(Entry.ADMITTED) == 6
    assert entries(counts, "192.0.2.2", 2) == [Entry.ADMITTED] * 2
    assert entries(counts, "192.0.2.3", 1) == [Entry.TOO_MANY]


def test_no_customer_with_many_ipv6_networks_holds_all() -> None:
    counts = ConnectionCounts(100, 10)
    flood = [counts.enter(f"2001:db8:1:{number:x}::1").entry for number in range(100)]
    assert flood.count(Entry.ADMITTED) == 75
    assert flood[-1] is Entry.DROPPED or flood[-1] is Entry.TOO_MANY_OF_ADDRESS
    assert entries(counts, "2001:db8:2::1", 1) == [Entry.ADMITTED]
    assert entries(counts, "192.0.2.1", 1) == [Entry.ADMITTED]


@pytest.mark.parametrize("peer", ["10.0.0.1", "::ffff:10.0.0.1", None])
def test_a_trusted_proxy_and_a_unix_socket_have_no_limit_of_their_own(peer: str | None) -> None:
    counts = ConnectionCounts(10, 1, TrustedProxies(["10.0.0.0/8"]).trusts)
    assert entries(counts, peer, 11) == [Entry.ADMITTED] * 10 + [Entry.TOO_MANY]


def test_without_limits_by_address_one_may_hold_all() -> None:
    assert entries(ConnectionCounts(3), "192.0.2.1", 4) == [Entry.ADMITTED] * 3 + [Entry.TOO_MANY]


def test_a_place_is_given_back_once() -> None:
    counts = ConnectionCounts(10, 1)
    first = counts.enter("192.0.2.1")
    first.release()
    first.release()
    assert len(counts) == 0
    assert entries(counts, "192.0.2.1", 2) == [Entry.ADMITTED, Entry.TOO_MANY_OF_ADDRESS]


def test_refused_ones_take_nobodys_place() -> None:
    """Each stays open for a moment to read why; a flood of them is not told."""
    counts = ConnectionCounts(10, 1)
    flood = entries(counts, "192.0.2.1", 100)
    assert flood.count(Entry.ADMITTED) == 1
    assert flood.count(Entry.TOO_MANY_OF_ADDRESS) == MAX_REFUSALS_PER_ADDRESS
    assert flood[-1] is Entry.DROPPED
    assert len(counts) == 1
    assert entries(counts, "192.0.2.2", 2) == [Entry.ADMITTED, Entry.TOO_MANY_OF_ADDRESS]


def test_a_flood_from_everywhere_is_not_told_either() -> None:
    counts = ConnectionCounts(1)
    counts.enter("192.0.2.1")
    flood = [counts.enter(f"198.51.{number // 250}.{number % 250}").entry for number in range(MAX_REFUSALS + 10)]
    assert flood.count(Entry.TOO_MANY) == MAX_REFUSALS
