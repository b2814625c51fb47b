"""Which client a trusted proxy speaks for: ``X-Forwarded-For``, ``X-Forwarded-Proto`` and ``Forwarded``.

Each proxy appends the address that it was called from, so the list is believed from its right end, hop by hop, for as
long as the hop that told it is a trusted one. What stands further left came with the request, and anybody can send it.

A proxy that sets one of the two lists usually passes the other on as it came. So where both are there and lead to
different clients, neither is believed, and the proxy itself counts as the client.

Sources: RFC 7239, sections 4 to 6 (``Forwarded``), sections 7.1 and 8.1 (the chain, and what of it can be believed);
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
"""Hops that are followed; real chains have two or three."""

MAX_HEADER_BYTES = 4096
"""Bytes of a list that are read; over it, it is not believed at all."""

_UNQUOTED = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR = re.compile(rf'[ \t]*({_UNQUOTED})=(?:({_UNQUOTED})|"((?:[^"\\]|\\.)*)")[ \t]*')
_NODE = re.compile(r"\[([^\]]+)\](?::[\w.-]+)?|([^:]+)(?::[\w.-]+)?")


@dataclass(frozen=True, slots=True)
class ForwardedClient:
    """Who calls, as far as it is known.

    Attributes:
        address: the client's, or that of the last proxy in the chain that is believed.
        scheme: ``http`` or ``https`` between client and proxy; ``None``: nobody trusted says.
    """

    address: str
    scheme: str | None = None


@dataclass(frozen=True, slots=True)
class _Hop:
    client: Address | None
    scheme: str | None


class TrustedProxies:
    """The proxies whose word is believed.

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
        """Whether this address is a trusted proxy's."""
        return self._is_trusted(peer)

    def origin(self, peer: str, headers: Sequence[tuple[bytes, bytes]]) -> ForwardedClient:
        """Return who calls.

        Args:
            peer: the address at the other end of the connection.
            headers: of the request, names in lower case.
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
        origin = ForwardedClient(peer)
        for hop in list(reversed(hops))[:MAX_HOPS]:
            if hop.client is None:  # "unknown", hidden, or nonsense: what stands before it is nobody's word
                break
            origin = ForwardedClient(str(hop.client), hop.scheme)
            if not self._is_trusted(origin.address):
                break
        return origin

    def _look_up(self, peer: str) -> bool:
        address = parse_address(peer)
        return address is not None and any(address in network for network in self._networks)


def _values(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> str | None:
    # Several fields of a name are one list (RFC 9110, section 5.3).
    found = [value for key, value in headers if key == name]
    if not found:
        return None
    value = b",".join(found)
    return value.decode("latin-1") if len(value) <= MAX_HEADER_BYTES else ""


def _scheme(value: str | None) -> str | None:
    # The nearest proxy's word, which is the last one.
    last = (value or "").rpartition(",")[2].strip().lower()
    return last if last in ("http", "https") else None


def _node(text: str) -> Address | None:
    """Read ``192.0.2.1``, ``192.0.2.1:443``, ``2001:db8::1`` or ``[2001:db8::1]:443``."""
    text = text.strip()
    if (address := parse_address(text)) is not None:
        return address
    found = _NODE.fullmatch(text)
    return parse_address(found[1] or found[2]) if found else None


def _parse_forwarded(value: str) -> list[_Hop]:
    """Read the elements of ``Forwarded``; none where it is malformed, since then it is open who said what."""
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
