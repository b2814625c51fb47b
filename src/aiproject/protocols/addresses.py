"""Addresses of clients: one spelling for each, and the block that one client may well have to itself.

No I/O: a text that is no address is not looked up anywhere.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

__all__ = ["Address", "Network", "address_group", "address_site", "normalised", "parse_address", "parse_network"]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

IPV6_PREFIX = 64
"""Bits of an IPv6 address that name a network. The rest is the client's own choice (RFC 4291, section 2.5.1, and RFC
8981 for addresses that change daily), so limits count the network."""

IPV6_SITE_PREFIX = 48
"""Bits of an IPv6 address that name a site: the most that one customer is given (RFC 6177, section 2)."""

CACHED_ADDRESSES = 65_536
"""Addresses whose spelling is kept: parsing one takes about two microseconds, looking it up a tenth of one."""


def parse_address(text: str) -> Address | None:
    """Return the address that ``text`` spells, an IPv4-mapped one (``::ffff:192.0.2.1``) as IPv4, without zone.

    ``None`` where it spells none.
    """
    if len(text) > 64:  # a zone can be of any length
        return None
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def parse_network(text: str) -> Network:
    """Return the network that ``text`` spells: an address, or one with a prefix length.

    Raises:
        ValueError: it spells none, or has bits set after its prefix.
    """
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped and network.prefixlen >= 96:
        return IPv4Network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    return network


@lru_cache(CACHED_ADDRESSES)
def normalised(text: str) -> str:
    """Return the one spelling of an address; what is none is returned as it came."""
    address = parse_address(text)
    return text if address is None else str(address)


@lru_cache(CACHED_ADDRESSES)
def address_group(text: str) -> str:
    """Return the name under which limits count an address: an IPv4 address itself, an IPv6 address's /64."""
    address = parse_address(text)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, IPV6_PREFIX), strict=False))
    return text if address is None else str(address)


def address_site(group: str) -> str | None:
    """Return the site, an IPv6 /48, of a group of `address_group`; ``None`` where it is not that of an IPv6 address."""
    try:
        return str(IPv6Network(group).supernet(new_prefix=IPV6_SITE_PREFIX))
    except ValueError:
        return None
