"""The client behind trusted proxies: ``X-Forwarded-For``, ``X-Forwarded-Proto`` and ``Forwarded``.

Each proxy appends the address of its own client. The list is therefore read from its right end, hop by hop, as long as
the hop that reported an address is trusted. Everything further left came with the request and can be forged.

A proxy that sets one of the two lists usually passes the other on unchanged. So if both are present and lead to
different clients, neither is trusted, and the proxy itself counts as the client.

Sources: RFC 7239, sections 4 to 6 (``Forwarded``), sections 7.1 and 8.1 (the chain, and how far it can be trusted);
``X-Forwarded-For`` and ``X-Forwarded-Proto`` are described in its section 1 and appendix A.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from aiproject.protocols.addresses import Address, Network, parse_address, parse_network

__all__ = ["ForwardedClient", "TrustedProxies"]

MAX_HOPS = 32
"""The largest number of hops that are followed; real chains have two or three."""

MAX_HEADER_BYTES = 4096
"""The largest list in bytes; a longer one is ignored as a whole."""

_UNQUOTED = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR = re.compile(rf'[ \t]*({_UNQUOTED})=(?:({_UNQUOTED})|"((?:[^"\\]|\\.)*)")[ \t]*')
_NODE = re.compile(r"\[([^\]]+)\](?::[\w.-]+)?|([^:]+)(?::[\w.-]+)?")


@dataclass(frozen=True, slots=True)
class ForwardedClient:
    """The client of a request, as far as it can be determined.

    Attributes:
        address: the client's address, or that of the last trusted proxy in the chain.
        scheme: ``http`` or ``https`` between client and proxy; ``None``: no trusted proxy reported it.
    """

    address: str
    scheme: str | None = None


@dataclass(frozen=True, slots=True)
class _Hop:
    client: Address | None
    scheme: str | None


class TrustedProxies:
    """The proxies whose forwarding headers are trusted.

    Args:
        networks: addresses (``10.0.0.1``) or networks (``10.0.0.0/8``).

    Raises:
        ValueError: one of them is neither.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks: list[Network] = [parse_network(text) for text in networks]
        self._is_trusted = lru_cache(4096)(self._look_up)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def trusts(self, peer: str) -> bool:
        """Whether ``peer`` is the address of a trusted proxy."""
        return self._is_trusted(peer)

    def client(self, peer: str, headers: Sequence[tuple[bytes, bytes]]) -> ForwardedClient:
        """Return the client of a request.

        Args:
            peer: the address at the other end of the connection.
            headers: the request's header fields, names in lower case.
        """
        if not self._is_trusted(peer):
            return ForwardedClient(peer)
        forwarded_for = _values(headers, b"x-forwarded-for")
        forwarded = _values(headers, b"forwarded")
        scheme = _scheme(_values(headers, b"x-forwarded-proto"))
        chains = []
        if forwarded_for is not None:
            chains.append(self._follow(peer, [_Hop(_node(item), scheme) for item in forwarded_for.split(",")]))
        if forwarded is not None:
            chains.append(self._follow(peer, _parse_forwarded(forwarded)))
        if not chains:
            return ForwardedClient(peer, scheme)
        first, *others = chains
        if any(other.address != first.address for other in others):
            return ForwardedClient(peer, scheme)
        return ForwardedClient(first.address, next((chain.scheme for chain in chains if chain.scheme), scheme))

    def _follow(self, peer: str, hops: Sequence[_Hop]) -> ForwardedClient:
        client = ForwardedClient(peer)
        for hop in list(reversed(hops))[:MAX_HOPS]:
            if hop.client is None:  # hidden ("unknown") or malformed: what precedes it cannot be trusted
                break
            client = ForwardedClient(str(hop.client), hop.scheme)
            if not self._is_trusted(client.address):
                break
        return client

    def _look_up(self, peer: str) -> bool:
        address = parse_address(peer)
        return address is not None and any(address in network for network in self._networks)


def _values(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> str | None:
    # Several fields of the same name form one list (RFC 9110, section 5.3).
    found = [value for key, value in headers if key == name]
    if not found:
        return None
    value = b",".join(found)
    return value.decode("latin-1") if len(value) <= MAX_HEADER_BYTES else ""


def _scheme(value: str | None) -> str | None:
    # The last value is the one that the nearest proxy set.
    last = (value or "").rpartition(",")[2].strip().lower()
    return last if last in ("http", "https") else None


def _node(text: str) -> Address | None:
    """Parse ``192.0.2.1``, ``192.0.2.1:443``, ``2001:db8::1`` or ``[2001:db8::1]:443``."""
    text = text.strip()
    if (address := parse_address(text)) is not None:
        return address
    found = _NODE.fullmatch(text)
    return parse_address(found[1] or found[2]) if found else None


def _parse_forwarded(value: str) -> list[_Hop]:
    """Parse the elements of ``Forwarded``; an empty list if it is malformed, since its hops are then ambiguous."""
    hops: list[_Hop] = []
    pairs: dict[str, str] = {}
    at = 0
    while True:
        found = _PAIR.match(value, at)
        if found is None:
            return []
        name, token, quoted = found.groups()
        pairs[name.lower()] = token if token is not None else re.sub(r"\\(.)", r"\1", quoted)
        at = found.end()
        separator = value[at : at + 1]
        if separator in (",", ""):
            scheme = pairs.get("proto", "").lower()
            hops.append(_Hop(_node(pairs.get("for", "")), scheme if scheme in ("http", "https") else None))
            pairs = {}
        elif separator != ";":
            return []
        if not separator:
            return hops
        at += 1
