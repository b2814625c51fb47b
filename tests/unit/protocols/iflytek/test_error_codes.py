"""The tables of vendor codes against lists typed from the documents."""

from __future__ import annotations

import base64
import html
import json
import unicodedata
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject.codes import Detail
from aiproject.messages.formatting import Language, format_message
from aiproject.protocols.iflytek.error_codes import (
    MAX_QUOTED,
    TABLES,
    Problem,
    Service,
    advise,
    quotable,
    quote,
    refusal,
)
from aiproject.protocols.iflytek.signing import sign_url

# Code by code from the documents, with their recommendation: a new try helps (True) or not (False).
SPARK_CHAT = {
    10000: True, 10001: True, 10002: False, 10003: False, 10004: False, 10005: False, 10006: True, 10007: True,
    10008: True, 10009: True, 10010: True, 10011: True, 10012: True, 10013: False, 10014: False, 10015: False,
    10016: False, 10017: False, 10018: False, 10019: False, 10021: False, 10110: True, 10163: False, 10222: True,
    10223: True, 10313: False, 10404: False, 10907: False, 11200: False, 11201: False, 11202: True, 11203: True,
    11210: False,
}  # fmt: skip
IMAGE_UNDERSTANDING = {
    10003: False, 10004: False, 10005: False, 10006: True, 10013: False, 10022: False, 10029: False, 10041: False,
    10907: False,
}  # fmt: skip
DICTATION = {
    10005: False, 10006: False, 10007: False, 10009: False, 10010: True, 10014: True, 10019: True, 10043: False,
    10044: False, 10047: False, 10050: True, 10101: False, 10109: False, 10110: True, 10114: False, 10139: False,
    10160: False, 10161: False, 10163: False, 10164: True, 10165: False, 10200: True, 10222: True, 10303: False,
    10313: False, 10317: False, 10404: False, 10500: True, 10600: True, 10700: True, 11200: False, 11201: False,
    11202: True, 11203: False,
}  # fmt: skip
DICTATION_LARGE_MODEL = [
    10009, 10010, 10019, 10043, 10114, 10139, 10160, 10161, 10163, 10200, 10222, 10223, 10313, 10317, 10700, 11200,
    11201, 11502, 11503,
]  # fmt: skip
OCR = {
    10003: True, 10004: False, 10008: True, 10009: False, 10010: False, 10019: True, 10043: False, 10101: False,
    10105: False, 10114: True, 10118: True, 10139: False, 10160: False, 10161: False, 10163: False, 10200: True,
    10221: True, 10222: True, 10223: True, 10225: False, 10300: True, 10301: True, 10313: False, 10317: False,
    10400: True, 10401: True, 10500: True, 10600: True, 10700: False, 11200: False, 11201: False, 11202: True,
    11203: True, 11502: True, 11503: True,
} | dict.fromkeys(range(100001, 100011), True)  # fmt: skip


def chinese(detail: Detail) -> str:
    return format_message(detail, Language.ZH)


DOCUMENTED = [
    (service, code, retry)
    for service, table in [
        (Service.SPARK, SPARK_CHAT),
        (Service.SPARK, IMAGE_UNDERSTANDING),
        (Service.DICTATION, DICTATION),
        (Service.OCR, OCR),
    ]
    for code, retry in table.items()
]


class TestTables:
    @pytest.mark.parametrize(("service", "code", "retry"), DOCUMENTED)
    def test_a_documented_code_is_there_with_its_recommendation(self, service: Service, code: int, retry: bool) -> None:
        assert code in TABLES[service]
        assert advise(service, code).retry is retry

    @pytest.mark.parametrize("code", DICTATION_LARGE_MODEL)
    def test_the_large_model_shares_the_table_of_dictation(self, code: int) -> None:
        assert code in TABLES[Service.DICTATION]

    @pytest.mark.parametrize("service", Service)
    def test_each_code_has_both_languages(self, service: Service) -> None:
        for code in TABLES[service]:
            advice = advise(service, code)
            assert any("\u4e00" <= character <= "\u9fff" for character in chinese(advice.detail)), code
            assert not chinese(advice.detail).endswith("。"), code
            assert advice.en.isascii(), code
            assert advice.en.endswith("."), code

    @pytest.mark.parametrize("service", Service)
    def test_the_operator_can_tell_any_two_codes_apart(self, service: Service) -> None:
        codes = [code for code in TABLES[service] if code < 100002]  # 100001 to 100010 are one error
        assert len({advise(service, code).en for code in codes}) == len(codes)

    @pytest.mark.parametrize("service", Service)
    def test_one_chinese_sentence_stands_for_one_problem(self, service: Service) -> None:
        problem_of: dict[str, Problem] = {}
        for code in TABLES[service]:
            advice = advise(service, code)
            assert problem_of.setdefault(chinese(advice.detail), advice.problem) == advice.problem, code

    @pytest.mark.parametrize("service", Service)
    def test_a_delay_belongs_to_a_new_try(self, service: Service) -> None:
        for code in TABLES[service]:
            advice = advise(service, code)
            assert 0.0 <= advice.retry_delay <= 5.0
            assert advice.retry or advice.retry_delay == 0.0

    @pytest.mark.parametrize("service", [Service.SPARK, Service.DICTATION, Service.OCR])
    def test_the_rate_limit_asks_for_a_second(self, service: Service) -> None:
        assert advise(service, 11202).retry_delay >= 1.0

    def test_only_three_codes_show_the_hint(self) -> None:
        shown = {(service, code) for service in Service for code in TABLES[service]
                 if advise(service, code).shows_hint}  # fmt: skip
        assert shown == {(Service.SPARK, 10013), (Service.SPARK, 10014), (Service.SPARK, 10019)}

    def test_a_number_means_what_its_service_says(self) -> None:
        assert advise(Service.SPARK, 10019).problem is Problem.MODERATION
        assert advise(Service.DICTATION, 10019).problem is Problem.SESSION
        assert advise(Service.SPARK, 11203).problem is Problem.CAPACITY
        assert advise(Service.DICTATION, 11203).problem is Problem.CONFIGURATION
        assert advise(Service.DICTATION, 10005).problem is Problem.CONFIGURATION
        assert advise(Service.SPARK, 10005).problem is Problem.PROTOCOL
        assert advise(Service.DICTATION, 10114).problem is Problem.INPUT_TOO_LONG
        assert advise(Service.OCR, 10114).problem is Problem.SESSION

    @pytest.mark.parametrize("service", Service)
    def test_an_unlisted_code_is_not_tried_again(self, service: Service) -> None:
        advice = advise(service, 99999)
        assert advice.problem is Problem.INTERNAL
        assert not advice.retry
        assert chinese(advice.detail)
        assert advice.en


class TestRefusal:
    def test_carries_the_table_s_advice(self) -> None:
        error = refusal(Service.SPARK, 11202, "AppIdQpsOverFlowError:(12:17:04.432)", "cht01@dx02")
        assert (error.code, error.sid, error.hint) == (11202, "cht01@dx02", "")
        assert error.retryable
        assert error.retry_delay >= 1.0
        assert error.detail == "spark refused with code 11202: AppIdQpsOverFlowError:(12:17:04.432)"

    def test_a_moderation_hint_is_for_the_person_and_not_for_the_log(self) -> None:
        error = refusal(Service.SPARK, 10013, "您的问题涉及敏感信息\n请重新提问", None)
        assert error.hint == "您的问题涉及敏感信息 请重新提问"
        assert "敏感" not in error.detail
        assert "10013" in error.detail
        assert error.sid is None

    def test_no_message_leaves_the_table_s(self) -> None:
        assert refusal(Service.OCR, 10009, "", "").detail.endswith("not a picture, or a damaged one.")

    @given(st.sampled_from(list(Service)), st.integers(), st.text(), st.none() | st.text())
    def test_whatever_the_vendor_says_is_bounded(
        self, service: Service, code: int, message: str, sid: str | None
    ) -> None:
        error = refusal(service, code, message * 20, sid and sid * 20)
        assert len(error.hint) <= MAX_QUOTED
        assert len(error.sid or "") <= 64
        assert error.detail.isprintable()


class TestQuotable:
    @given(st.text(alphabet=st.characters(), max_size=400))
    def test_is_one_short_line_that_can_be_encoded(self, text: str) -> None:
        quoted = quotable(text, 50)
        assert len(quoted) <= 50
        assert not any(unicodedata.category(character) in ("Cc", "Cf", "Cs") for character in quoted)
        assert quoted == quoted.strip()
        quoted.encode()

    def test_lone_surrogates_and_steering_characters_are_left_out(self) -> None:
        assert quotable("\u200b" * 1000 + "far", 50) == ""
        assert quotable("a\ud83d\u202e\x1b[31mb\u0000c") == "a [31mb c"


API_KEY, API_SECRET = "0a1b2c3d4e5f0a1b2c3d4e5f0a1b2c3d", "QUJDREVGR0hJSktMTU5PUFFSU1RVVldY"
SIGNED = sign_url(
    "wss://spark-api.xf-yun.com/v3.5/chat",
    method="GET",
    api_key=API_KEY,
    api_secret=API_SECRET,
    date="Sat, 28 Nov 2026 18:00:00 GMT",
)
PARTS = {name: values[0] for name, values in urllib.parse.parse_qs(urllib.parse.urlsplit(SIGNED).query).items()}
PARAMETERS = base64.b64decode(PARTS["authorization"]).decode()

ECHOES = {
    "the address": f"cannot connect {SIGNED} here",
    "the request line": f"bad request: GET /v3.5/chat?{SIGNED.partition('?')[2]} HTTP/1.1",
    "the query": SIGNED.partition("?")[2],
    "the query behind many words": "word " * 300 + SIGNED.partition("?")[2],
    "HTML": html.escape(SIGNED),
    "a percent-encoded address": urllib.parse.quote(SIGNED, safe=""),
    "JSON": json.dumps({"message": "no", "request": SIGNED}),
    "JSON of the parts": json.dumps(PARTS),
    "JSON in JSON": json.dumps({"message": json.dumps(PARTS)}),
    "the escapes of JSON": SIGNED.replace("=", "\\u003d").replace("&", "\\u0026").replace("?", " "),
    "the parameters": PARAMETERS,
    "the authorization alone": PARTS["authorization"],
}


class TestEchoes:
    """A gateway that repeats our request must not bring its signature into our log."""

    @pytest.mark.parametrize("text", list(ECHOES.values()), ids=list(ECHOES))
    def test_nothing_of_a_signed_address_is_quoted(self, text: str) -> None:
        told = quote(text)
        signature = PARAMETERS.rpartition('signature="')[2].rstrip('"')
        secrets = (PARTS["authorization"], signature, API_KEY, API_SECRET, "18:00:00")
        for secret in (*secrets, *map(urllib.parse.quote_plus, secrets)):
            assert secret not in told
            assert secret[:16] not in told or secret == "18:00:00"
        assert len(told) <= MAX_QUOTED

    @pytest.mark.parametrize(
        "text",
        [
            "HMAC signature cannot be verified, a valid date or x-date header is required for HMAC Authentication",
            '{"message":"HMAC signature does not match"}',
            "AppIdNoAuthError:(illegal access|no category route found:domain=generalv9)",
            "engine busy, sid cht000b7f3c@dx18c1f0d7a3cb8f2532",
            "你是谁？为什么",
        ],
    )
    def test_what_vendors_say_otherwise_stays(self, text: str) -> None:
        assert quote(text) == text

    @given(st.text(max_size=4000))
    def test_any_text_is_bounded(self, text: str) -> None:
        assert len(quote(text)) <= MAX_QUOTED

    def test_error_codes_quote_so(self) -> None:
        assert API_KEY not in refusal(Service.SPARK, 10004, f"bad: {SIGNED} api_key={API_KEY}", None).detail
        assert API_KEY not in refusal(Service.SPARK, 10013, f"bad: {SIGNED} api_key={API_KEY}", None).hint
