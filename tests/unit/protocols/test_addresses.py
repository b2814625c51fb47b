"""Addresses have one spelling, and limits count what one client may well have to itself."""

from __future__ import annotations

import pytest

from aiproject.protocols.addresses import address_group, address_site, normalised, parse_address, parse_network


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:0201", "192.0.2.1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("unknown", "unknown"),
        ("192.0.2.01", "192.0.2.01"),  # no address: some read it as octal
        ("", ""),
    ],
)
def test_an_address_has_one_spelling(text: str, spelling: str) -> None:
    assert normalised(text) == spelling


@pytest.mark.parametrize("text", ["", "a", "1.2.3", "1.2.3.4.5", "::g", "1.2.3.4/8", " 1.2.3.4", "fe80::1%" + "x" * 99])
def test_what_is_no_address_is_none(text: str) -> None:
    assert parse_address(text) is None


def test_limits_count_an_ipv6_network_and_an_ipv4_address() -> None:
    assert address_group("2001:db8:1:2:3:4:5:6") == address_group("2001:db8:1:2::") == "2001:db8:1:2::/64"
    assert address_group("2001:db8:1:3::1") != address_group("2001:db8:1:2::1")
    assert address_group("::ffff:192.0.2.1") == address_group("192.0.2.1") == "192.0.2.1"
    assert address_group("192.0.2.2") != address_group("192.0.2.1")
    assert address_group("unknown") == "unknown"


def test_networks_are_read_and_mapped_ones_are_ipv4() -> None:
    assert str(parse_network("10.0.0.0/8")) == "10.0.0.0/8"
    assert str(parse_network("10.1.2.3")) == "10.1.2.3/32"
    assert str(parse_network("::ffff:10.0.0.0/104")) == "10.0.0.0/8"
    for wrong in ("10.0.0.1/8", "proxy.example", "", "10.0.0.0/33"):
        with pytest.raises(ValueError, match=r".+"):
            parse_network(wrong)


def test_networks_of_ipv6_belong_to_a_site() -> None:
    assert address_site(address_group("2001:db8:1:2::1")) == address_site("2001:db8:1:ffff::/64") == "2001:db8:1::/48"
    assert address_site(address_group("2001:db8:2:2::1")) != "2001:db8:1::/48"
    assert [address_site(group) for group in ("192.0.2.1", "unknown", "", "5")] == [None] * 4
