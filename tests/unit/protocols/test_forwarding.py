"""Whose word about a client is believed, and whose is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject.protocols.addresses import parse_address
from aiproject.protocols.forwarding import MAX_HOPS, ForwardedClient, TrustedProxies

PROXIES = TrustedProxies(["10.0.0.0/8", "2001:db8:ffff::/48", "127.0.0.1"])
PROXY = "10.0.0.1"


def headers(**fields: str | list[str]) -> list[tuple[bytes, bytes]]:
    return [
        (name.replace("_", "-").encode(), value.encode("latin-1"))
        for name, values in fields.items()
        for value in (values if isinstance(values, list) else [values])
    ]


def client(peer: str = PROXY, **fields: str | list[str]) -> str:
    return PROXIES.client(peer, headers(**fields)).address


class TestXForwardedFor:
    def test_a_trusted_proxy_speaks_for_its_client(self) -> None:
        assert client(x_forwarded_for="192.0.2.7") == "192.0.2.7"

    def test_nobody_else_does(self) -> None:
        fields = headers(x_forwarded_for="192.0.2.7", forwarded="for=192.0.2.7;proto=https", x_forwarded_proto="https")
        assert PROXIES.client("198.51.100.1", fields) == ForwardedClient("198.51.100.1")
        assert TrustedProxies([]).client(PROXY, fields) == ForwardedClient(PROXY)

    def test_what_the_client_sent_along_is_not_believed(self) -> None:
        assert client(x_forwarded_for="203.0.113.9, 192.0.2.7") == "192.0.2.7"
        assert client(x_forwarded_for="10.9.9.9, 192.0.2.7") == "192.0.2.7"  # not even if it looks like a proxy
        assert client(x_forwarded_for=["203.0.113.9", "192.0.2.7"]) == "192.0.2.7"  # nor in a field of its own

    def test_a_chain_of_trusted_proxies_is_followed(self) -> None:
        assert client(x_forwarded_for="203.0.113.9, 192.0.2.7, 10.0.0.3, 10.0.0.2") == "192.0.2.7"
        assert client(x_forwarded_for="192.0.2.7, 198.51.100.1, 10.0.0.2") == "198.51.100.1"

    def test_a_chain_of_nothing_but_proxies_leads_to_the_first(self) -> None:
        assert client(x_forwarded_for="10.0.0.3,10.0.0.2") == "10.0.0.3"

    @pytest.mark.parametrize(
        "nonsense", ["", " ", "unknown", "_hidden", "evil", "1.2.3.4.5", "[", "[::1", "::g", ":80"]
    )
    def test_nonsense_ends_the_chain_at_who_told_it(self, nonsense: str) -> None:
        assert client(x_forwarded_for=nonsense) == PROXY
        assert client(x_forwarded_for=f"192.0.2.7, {nonsense}, 10.0.0.2") == "10.0.0.2"
        assert client(x_forwarded_for=f"{nonsense}, 192.0.2.7") == "192.0.2.7"

    @pytest.mark.parametrize(
        ("told", "address"),
        [
            ("192.0.2.7:51234", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:DB8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:443", "2001:db8::7"),
        ],
    )
    def test_addresses_come_in_many_spellings(self, told: str, address: str) -> None:
        assert client(x_forwarded_for=told) == address

    def test_a_long_list_is_read_from_its_end_and_an_absurd_one_not_at_all(self) -> None:
        assert client(x_forwarded_for="203.0.113.9, " * 100 + "192.0.2.7") == "192.0.2.7"
        assert client(x_forwarded_for="203.0.113.9, " * 1000 + "192.0.2.7") == PROXY
        assert client(x_forwarded_for="192.0.2.7" + ", 10.0.0.2" * MAX_HOPS) == "10.0.0.2"

    def test_trusted_addresses_may_be_ipv6_or_mapped(self) -> None:
        assert client("2001:db8:ffff::1", x_forwarded_for="192.0.2.7") == "192.0.2.7"
        assert client("::ffff:10.0.0.1", x_forwarded_for="192.0.2.7") == "192.0.2.7"
        assert client("2001:db8:fffe::1", x_forwarded_for="192.0.2.7") == "2001:db8:fffe::1"


class TestForwarded:
    @pytest.mark.parametrize(
        ("told", "address", "scheme"),
        [
            ("for=192.0.2.7", "192.0.2.7", None),
            ("For=192.0.2.7;Proto=HTTPS;by=10.0.0.1", "192.0.2.7", "https"),
            ('for="192.0.2.7:51234"; proto=http ', "192.0.2.7", "http"),
            ('for="[2001:db8::7]:443";host="ai.example, x"', "2001:db8::7", None),
            ('for="\\192.0.2.7"', "192.0.2.7", None),
            ("for=203.0.113.9;proto=http, for=192.0.2.7;proto=https", "192.0.2.7", "https"),
            ("for=192.0.2.7;proto=https, for=10.0.0.3;proto=http", "192.0.2.7", "https"),
            ("for=192.0.2.7;proto=gopher", "192.0.2.7", None),
            ("for=unknown, for=10.0.0.2", "10.0.0.2", None),
            ("for=_hidden", PROXY, None),
            ("proto=https", PROXY, None),
        ],
    )
    def test_it_is_read_as_the_standard_says(self, told: str, address: str, scheme: str | None) -> None:
        assert PROXIES.client(PROXY, headers(forwarded=told)) == ForwardedClient(address, scheme)

    @pytest.mark.parametrize(
        "told",
        [
            'for="192.0.2.7',
            "for=",
            "for",
            "for=192.0.2.7,",
            ",for=192.0.2.7",
            "for=[::1]",
            "a=b;;for=192.0.2.7",
            "x y=1",
        ],
    )
    def test_a_malformed_one_is_nobodys_word(self, told: str) -> None:
        assert client(forwarded=told) == PROXY

    def test_an_open_quotation_of_the_client_hides_nobody_else(self) -> None:
        assert client(forwarded='for="203.0.113.9, for=192.0.2.7') == PROXY


class TestBoth:
    def test_where_they_agree_they_are_believed(self) -> None:
        fields = headers(x_forwarded_for="192.0.2.7", forwarded="for=192.0.2.7;proto=https")
        assert PROXIES.client(PROXY, fields) == ForwardedClient("192.0.2.7", "https")

    def test_where_they_differ_neither_is(self) -> None:
        """A proxy that sets one passes the other on as the client sent it."""
        assert client(x_forwarded_for="192.0.2.7", forwarded="for=203.0.113.9") == PROXY
        assert client(x_forwarded_for="203.0.113.9", forwarded="for=192.0.2.7") == PROXY


class TestScheme:
    def test_the_nearest_proxy_says(self) -> None:
        def scheme(told: str) -> str | None:
            return PROXIES.client(PROXY, headers(x_forwarded_for="192.0.2.7", x_forwarded_proto=told)).scheme

        assert scheme("https") == "https"
        assert scheme("https, http") == "http"
        assert scheme("HTTPS") == "https"
        assert scheme("javascript") is None
        assert PROXIES.client(PROXY, headers(x_forwarded_proto="https")) == ForwardedClient(PROXY, "https")


@given(st.text(max_size=80), st.text(max_size=80))
def test_whatever_comes_the_answer_is_an_address(told_for: str, told: str) -> None:
    fields = [(b"x-forwarded-for", told_for.encode()), (b"forwarded", told.encode())]
    assert parse_address(PROXIES.client(PROXY, fields).address) is not None


@given(st.text(max_size=60))
def test_no_prefix_changes_what_the_proxy_appended(sent: str) -> None:
    value = f"{sent}, 192.0.2.7".encode()
    assert PROXIES.client(PROXY, [(b"x-forwarded-for", value)]).address == "192.0.2.7"


@pytest.mark.parametrize("wrong", ["proxy.example", "10.0.0.1/8", ""])
def test_a_network_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        TrustedProxies([wrong])
