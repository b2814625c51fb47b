"""Signing against the platform's published vectors, and refusing what its gateway refuses.

V0 and V1 in ``signing_vectors.json`` are printed in iFlytek's documents (《WebSocket协议通用鉴权URL生成说明》 and
《声纹识别 API 文档》); the others use made-up keys and were computed apart from this code.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject.protocols.iflytek.signing import (
    SignatureRefused,
    authorization_of,
    authorization_origin,
    clock_offset,
    http_date,
    parse_http_date,
    sign_url,
    signature_of,
    signature_origin,
    verify,
)

VECTORS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("signing_vectors.json").read_text("utf-8"))

KEY = "test-api-key-0000000000000000001"
SECRET = "test-api-secret-0000000000000001"
URL = "wss://spark-api.xf-yun.com/v3.5/chat"
PATH = "/v3.5/chat"
NOW = datetime(2024, 5, 1, 8, 0, 0, tzinfo=UTC)

CANNOT_BE_VERIFIED = "cannot be verified"
DOES_NOT_MATCH = "does not match"


def signed_query(
    *, url: str = URL, method: Literal["GET", "POST"] = "GET", when: datetime = NOW, key: str = KEY
) -> dict[str, str]:
    signed = sign_url(url, method=method, api_key=key, api_secret=SECRET, date=http_date(when))
    return dict(parse_qsl(urlsplit(signed).query))


def check(query: dict[str, str], *, method: str = "GET", path: str = PATH, now: datetime = NOW) -> str:
    return verify(method=method, path=path, query=query, secrets={KEY: SECRET}, now=now)


def assert_refused(query: dict[str, str], status: int, text: str) -> None:
    with pytest.raises(SignatureRefused) as caught:
        check(query)
    assert caught.value.status == status
    assert text in caught.value.message
    assert SECRET not in str(caught.value)


def wrap(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class TestVectors:
    @pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
    def test_every_step_reproduces(self, vector: dict[str, Any]) -> None:
        parts = urlsplit(vector["base_url"])
        origin = signature_origin(host=parts.netloc, date=vector["date"], method=vector["method"], path=parts.path)
        assert origin == vector["signature_origin"]
        signature = signature_of(origin, api_secret=vector["api_secret"])
        assert signature == vector["signature"]
        key = vector["api_key"]
        assert authorization_origin(api_key=key, signature=signature) == vector["authorization_origin"]
        assert authorization_of(api_key=key, signature=signature) == vector["authorization"]
        url = sign_url(
            vector["base_url"],
            method=vector["method"],
            api_key=key,
            api_secret=vector["api_secret"],
            date=vector["date"],
        )
        assert url == vector["url"]

    @pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
    def test_every_vector_is_accepted(self, vector: dict[str, Any]) -> None:
        now = parse_http_date(vector["date"])
        assert now is not None
        parts = urlsplit(vector["url"])
        key = verify(
            method=vector["method"],
            path=parts.path,
            query=dict(parse_qsl(parts.query)),
            secrets={vector["api_key"]: vector["api_secret"]},
            now=now,
        )
        assert key == vector["api_key"]

    def test_all_nine_are_there(self) -> None:
        assert [vector["name"] for vector in VECTORS] == [f"V{number}" for number in range(9)]


class TestSignUrl:
    def test_a_query_is_kept_and_not_signed(self) -> None:
        date = http_date(NOW)
        plain = sign_url(URL, method="GET", api_key=KEY, api_secret=SECRET, date=date)
        queried = sign_url(f"{URL}?region=east&x=1", method="GET", api_key=KEY, api_secret=SECRET, date=date)
        assert queried == plain.replace("?", "?region=east&x=1&")

    def test_no_path_is_the_root(self) -> None:
        signed = sign_url("ws://127.0.0.1:9", method="GET", api_key=KEY, api_secret=SECRET, date=http_date(NOW))
        assert signed.startswith("ws://127.0.0.1:9/?authorization=")
        assert check(dict(parse_qsl(urlsplit(signed).query)), path="/") == KEY

    def test_a_fragment_is_dropped(self) -> None:
        signed = sign_url(f"{URL}#top", method="GET", api_key=KEY, api_secret=SECRET, date=http_date(NOW))
        assert "#" not in signed

    def test_userinfo_is_not_part_of_the_host(self) -> None:
        signed = sign_url("ws://me@host:1/p", method="GET", api_key=KEY, api_secret=SECRET, date=http_date(NOW))
        assert parse_qs(urlsplit(signed).query)["host"] == ["host:1"]

    @pytest.mark.parametrize("url", ["", "/v3.5/chat", "wss:///chat"])
    def test_a_url_without_host_is_refused(self, url: str) -> None:
        with pytest.raises(ValueError, match="names no host"):
            sign_url(url, method="GET", api_key=KEY, api_secret=SECRET, date=http_date(NOW))


class TestVerify:
    def test_both_spellings_of_the_key_are_accepted(self) -> None:
        query = signed_query()
        text = base64.b64decode(query["authorization"]).decode()
        assert check(query | {"authorization": wrap(text.replace("api_key=", "hmac username="))}) == KEY

    def test_commas_without_space_are_accepted(self) -> None:
        query = signed_query()
        text = base64.b64decode(query["authorization"]).decode()
        assert check(query | {"authorization": wrap(text.replace(", ", ","))}) == KEY

    def test_utc_for_gmt_is_accepted(self) -> None:
        date = http_date(NOW).replace("GMT", "UTC")
        signed = sign_url(URL, method="GET", api_key=KEY, api_secret=SECRET, date=date)
        assert check(dict(parse_qsl(urlsplit(signed).query))) == KEY

    def test_no_authorization(self) -> None:
        query = signed_query()
        del query["authorization"]
        assert_refused(query, 401, "Unauthorized")

    @pytest.mark.parametrize(
        "authorization",
        [
            "not-base64!!",
            "ＡＡ",
            wrap(f'api_key="{KEY}", algorithm="hmac-sha256", headers="host date request-line"'),
            wrap('algorithm="hmac-sha256", headers="host date request-line", signature="x"'),
            wrap(f'api_key="{KEY}", algorithm="hmac-sha1", headers="host date request-line", signature="x"'),
            wrap(f'api_key="{KEY}", algorithm="hmac-sha256", headers="date", signature="x"'),
            wrap(f'api_key="{KEY}", username="{KEY}", algorithm="hmac-sha256", signature="x"'),
            wrap("no parameters at all"),
            base64.b64encode(b"\xff\xfe").decode(),
            "A" * 5000,
        ],
    )
    def test_unusable_authorization(self, authorization: str) -> None:
        assert_refused(signed_query() | {"authorization": authorization}, 401, CANNOT_BE_VERIFIED)

    def test_a_right_signature_does_not_excuse_a_second_key_or_endless_blanks(self) -> None:
        query = signed_query()
        text = base64.b64decode(query["authorization"]).decode()
        assert check(query | {"authorization": wrap(f"{text}  ")}) == KEY
        for unusable in (f'{text}, username="{KEY}"', text + " " * 4096):
            assert_refused(query | {"authorization": wrap(unusable)}, 401, CANNOT_BE_VERIFIED)

    def test_unknown_key(self) -> None:
        assert_refused(signed_query(key="somebody-else"), 401, CANNOT_BE_VERIFIED)

    @pytest.mark.parametrize("date", [None, "", "yesterday", "Wed, 31 Feb 2024 08:00:00 GMT"])
    def test_no_usable_date(self, date: str | None) -> None:
        query = signed_query()
        if date is None:
            del query["date"]
        else:
            query["date"] = date
        assert_refused(query, 403, "date")

    def test_no_host(self) -> None:
        query = signed_query()
        del query["host"]
        assert_refused(query, 401, CANNOT_BE_VERIFIED)

    def test_one_flipped_character(self) -> None:
        query = signed_query()
        text = base64.b64decode(query["authorization"]).decode()
        assert 'signature="z' in text
        assert_refused(
            query | {"authorization": wrap(text.replace('signature="z', 'signature="y'))}, 401, DOES_NOT_MATCH
        )

    def test_a_signature_outside_ascii(self) -> None:
        query = signed_query()
        text = base64.b64decode(query["authorization"]).decode()
        assert_refused(
            query | {"authorization": wrap(text.replace('signature="z', 'signature="签'))}, 401, DOES_NOT_MATCH
        )

    def test_signed_for_another_method(self) -> None:
        assert_refused(signed_query(method="POST"), 401, DOES_NOT_MATCH)

    def test_signed_with_the_query_in_the_path(self) -> None:
        origin = signature_origin(host="h", date=http_date(NOW), method="GET", path=f"{PATH}?x=1")
        authorization = authorization_of(api_key=KEY, signature=signature_of(origin, api_secret=SECRET))
        query = {"authorization": authorization, "date": http_date(NOW), "host": "h"}
        assert_refused(query, 401, DOES_NOT_MATCH)

    def test_another_host_than_signed(self) -> None:
        assert_refused(signed_query() | {"host": "SPARK-api.xf-yun.com"}, 401, DOES_NOT_MATCH)

    def test_another_date_than_signed(self) -> None:
        other = http_date(NOW + timedelta(seconds=1))
        assert_refused(signed_query() | {"date": other}, 401, DOES_NOT_MATCH)

    @pytest.mark.parametrize("seconds", [-301, 301, -28800])
    def test_outside_the_window(self, seconds: int) -> None:
        assert_refused(signed_query(when=NOW + timedelta(seconds=seconds)), 403, "date")

    @pytest.mark.parametrize("seconds", [-300, -299, 0, 299, 300])
    def test_inside_the_window(self, seconds: int) -> None:
        assert check(signed_query(when=NOW + timedelta(seconds=seconds))) == KEY

    @given(st.dictionaries(st.sampled_from(["authorization", "date", "host"]), st.text()))
    def test_nonsense_is_refused_and_never_crashes(self, query: dict[str, str]) -> None:
        with pytest.raises(SignatureRefused):
            check(query)

    @given(st.text())
    def test_nonsense_inside_authorization_is_refused(self, text: str) -> None:
        with pytest.raises(SignatureRefused):
            check(signed_query() | {"authorization": wrap(text)})


class TestDates:
    def test_another_zone_is_turned_into_utc(self) -> None:
        china = timezone(timedelta(hours=8))
        assert http_date(datetime(2024, 5, 1, 16, 0, 0, 999999, tzinfo=china)) == "Wed, 01 May 2024 08:00:00 GMT"

    def test_a_naive_time_is_refused(self) -> None:
        with pytest.raises(ValueError, match="aware"):
            http_date(datetime(2024, 5, 1))  # noqa: DTZ001 - the point of the test

    @given(st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - hypothesis wants it
    def test_what_is_written_is_read_again(self, when: datetime) -> None:
        assert parse_http_date(http_date(when)) == when.replace(microsecond=0)

    @pytest.mark.parametrize(
        "text", ["Wed, 01 May 2024 08:00:00", "Wed, 1 May 2024 08:00:00 GMT", "Wed, 01 Mai 2024 08:00:00 GMT",
                 "Wed, 01 May 2024 08:00:00 CST", " Wed, 01 May 2024 08:00:00 GMT", "Wed, ０1 May 2024 08:00:00 GMT"]
    )  # fmt: skip
    def test_other_forms_are_no_dates(self, text: str) -> None:
        assert parse_http_date(text) is None

    def test_the_offset_is_what_our_clock_lacks(self) -> None:
        assert clock_offset("Wed, 01 May 2024 08:10:00 GMT", NOW) == 600.0
        assert clock_offset("Wed, 01 May 2024 07:59:00 GMT ", NOW) == -60.0
        assert clock_offset("soon", NOW) is None
