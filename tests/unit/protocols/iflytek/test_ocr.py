"""Reading pictures: both halves of the three services, alone and joined."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject import errors
from aiproject.messages.formatting import Language, format_error
from aiproject.protocols.iflytek.ocr.client import (
    MAX_BODY_BYTES,
    MAX_IMAGE_BASE64,
    MAX_IMAGE_BYTES,
    MAX_TEXT,
    OCR_SERVICES,
    OcrService,
    ocr_service,
)
from aiproject.protocols.iflytek.ocr.server import OcrRequestError, answer_body, error_body, parse_ocr_request

INTSIG, WORDS, LARGE = OCR_SERVICES["hh_ocr_recognize_doc"], OCR_SERVICES["sf8e6aca1"], OCR_SERVICES["se75ocrbm"]
ALL = pytest.mark.parametrize("service", OCR_SERVICES.values(), ids=OCR_SERVICES)
SID = "ase000704fa@dx16ade44e4d87a1c802"
APP_ID = "appid001"
JPEG = b"\xff\xd8\xff\xe0 not really a picture"
HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


def answered(service: OcrService, document: object, *, padding: bytes = b"") -> bytes:
    """A successful answer around a result document; bytes are taken as they are."""
    plain = document if isinstance(document, bytes) else json.dumps(document).encode()
    return with_text(service, base64.b64encode(plain + padding).decode())


def with_text(service: OcrService, text: object) -> bytes:
    header = {"code": 0, "message": "success", "sid": SID}
    return json.dumps({"header": header, "payload": {service.result_field: {"text": text}}}).encode()


def text_of(service: OcrService, document: object) -> str:
    return service.read_answer(200, answered(service, document)).text


class TestChoice:
    @pytest.mark.parametrize(
        ("url", "service"),
        [
            ("https://api.xf-yun.com/v1/private/hh_ocr_recognize_doc", INTSIG),
            ("http://127.0.0.1:9310/v1/private/sf8e6aca1/", WORDS),
            ("https://cbm01.cn-huabei-1.xf-yun.com/v1/private/se75ocrbm?x=/sf8e6aca1", LARGE),
        ],
    )
    def test_last_path_element_decides(self, url: str, service: OcrService) -> None:
        assert ocr_service(url) is service

    @pytest.mark.parametrize("url", ["https://api.xf-yun.com/v1/private/other", "https://api.xf-yun.com", ""])
    def test_unknown_service_names_the_known_ones(self, url: str) -> None:
        with pytest.raises(errors.Misconfigured) as caught:
            ocr_service(url)
        assert "hh_ocr_recognize_doc, sf8e6aca1, se75ocrbm" in format_error(caught.value, Language.EN)

    def test_no_url(self) -> None:
        with pytest.raises(errors.Misconfigured):
            ocr_service("https://[broken/sf8e6aca1")


class TestRequest:
    """The documents' examples, member by member."""

    def test_intsig(self) -> None:
        assert json.loads(INTSIG.build_request(JPEG, encoding="jpg", app_id=APP_ID, uid="someone")) == {
            "header": {"app_id": APP_ID, "status": 3},
            "parameter": {
                "hh_ocr_recognize_doc": {
                    "recognizeDocumentRes": {"encoding": "utf8", "compress": "raw", "format": "json"}
                }
            },
            "payload": {"image": {"encoding": "jpg", "image": base64.b64encode(JPEG).decode(), "status": 3}},
        }

    def test_words(self) -> None:
        assert json.loads(WORDS.build_request(JPEG, encoding="png", app_id=APP_ID)) == {
            "header": {"app_id": APP_ID, "status": 3},
            "parameter": {
                "sf8e6aca1": {
                    "category": "ch_en_public_cloud",
                    "result": {"encoding": "utf8", "compress": "raw", "format": "json"},
                }
            },
            "payload": {"sf8e6aca1_data_1": {"encoding": "png", "image": base64.b64encode(JPEG).decode(), "status": 3}},
        }

    def test_large_model(self) -> None:
        request = json.loads(LARGE.build_request(JPEG, encoding="bmp", app_id=APP_ID, uid="user-42"))
        assert request["header"] == {"app_id": APP_ID, "uid": "user-42", "status": 0}
        assert request["parameter"]["ocr"]["result_format"] == "json,markdown"
        assert request["parameter"]["ocr"]["result"] == {"encoding": "utf8", "compress": "raw", "format": "plain"}
        assert request["payload"]["image"].items() >= {"encoding": "bmp", "status": 0, "seq": 0}.items()
        nameless = json.loads(LARGE.build_request(JPEG, encoding="bmp", app_id=APP_ID, uid=None))
        assert "uid" not in nameless["header"]

    @ALL
    def test_requests_do_not_share_state(self, service: OcrService) -> None:
        one = service.build_request(JPEG, encoding="jpg", app_id=APP_ID)
        service.build_request(b"BM other", encoding="bmp", app_id="appid002")
        assert service.build_request(JPEG, encoding="jpg", app_id=APP_ID) == one

    def test_size_limits(self) -> None:
        largest = json.loads(INTSIG.build_request(bytes(MAX_IMAGE_BYTES), encoding="jpg", app_id=APP_ID))
        assert len(largest["payload"]["image"]["image"]) == MAX_IMAGE_BASE64
        with pytest.raises(errors.UnusableFile):
            INTSIG.build_request(bytes(MAX_IMAGE_BYTES + 1), encoding="jpg", app_id=APP_ID)
        with pytest.raises(errors.UnusableFile):
            INTSIG.build_request(b"", encoding="jpg", app_id=APP_ID)


class TestDocuments:
    @pytest.mark.parametrize(
        ("document", "text"),
        [
            ({"whole_text": "第一行\n第二行", "lines": [{"text": "unused"}]}, "第一行\n第二行"),
            ({"whole_text": "", "lines": []}, ""),
            ({"whole_text": None, "lines": [{"text": "一"}, {"position": []}, 5, {"text": "二"}]}, "一\n\n二"),
            ({"lines": []}, ""),
        ],
    )
    def test_intsig(self, document: object, text: str) -> None:
        assert text_of(INTSIG, document) == text

    @pytest.mark.parametrize(
        ("words", "text"),
        [
            (["第一", "行"], "第一行"),
            (["second", "line"], "second line"),
            (["iOS", "17", "发布"], "iOS 17发布"),
            (["Hello", ",", "world"], "Hello,world"),
            (["a", "", "b"], "a b"),
            (["naï", "ve"], "naïve"),
        ],
    )
    def test_words_of_a_line(self, words: list[str], text: str) -> None:
        line = {"words": [{"content": word} for word in words]}
        assert text_of(WORDS, {"category": "ch_en_public_cloud", "pages": [{"lines": [line]}]}) == text

    def test_pages_and_lines(self) -> None:
        line = {"words": [{"content": "x"}]}
        document = {"pages": [{"lines": [line, {}, {"words": None}, {"words": [{"conf": 1}]}, line]}, {}, 5]}
        assert text_of(WORDS, document) == "x\nx"
        assert text_of(WORDS, {"pages": []}) == ""
        assert text_of(WORDS, {"pages": None}) == ""

    @pytest.mark.parametrize(
        ("document", "text"),
        [
            ({"document": [{"name": "markdown", "value": "# 标题\n\n正文"}], "image": []}, "# 标题\n\n正文"),
            ({"document": [{"name": "sed"}, {"value": ""}, {"value": "二"}]}, "二"),
            (
                {"document": [], "image": [{"content": [[{"type": "text_block", "text": ["标题", "副标题"]}]]}]},
                "标题\n副标题",
            ),
            (
                {"a": {"type": "text_block", "text": "一"}, "b": [[{"x": {"type": "text_block", "text": "二"}}]]},
                "一\n二",
            ),
            ({"a": {"type": "text_block", "text": None}, "b": {"type": "text_block", "text": [5, "y"]}}, "y"),
            ({"type": "text_block", "text": "once", "parts": [{"type": "text_block", "text": "twice"}]}, "once"),
            ({"image": [{"content": [[]]}]}, ""),
            ("没有 JSON".encode(), "没有 JSON"),
            (b"42", "42"),
            (b"[1] Introduction", "[1] Introduction"),
        ],
    )
    def test_large_model(self, document: object, text: str) -> None:
        assert text_of(LARGE, document) == text

    @pytest.mark.parametrize(
        ("service", "document"),
        [
            (INTSIG, {}),
            (INTSIG, {"whole_text": 5, "lines": "x"}),
            (INTSIG, []),
            (INTSIG, b"plain text"),
            (WORDS, {"category": "ch_en_public_cloud"}),
            (WORDS, b"\xff\xfe"),
            (WORDS, b"[" * 20_000),
            (LARGE, b"\x1f\x8b\x08"),
            (LARGE, b'{"document": [{"name": "mark'),
            (LARGE, b'{"a":' + b"[" * 20_000),
            (LARGE, b'{"a":' * 200 + b"1" + b"}" * 200),
            (LARGE, {"document": [{"value": "x" * (MAX_TEXT + 1)}]}),
        ],
        ids=range(12),
    )
    def test_nonsense(self, service: OcrService, document: object) -> None:
        with pytest.raises(errors.UpstreamProtocolViolation):
            text_of(service, document)

    def test_a_tree_of_very_many_nodes_is_refused(self) -> None:
        with pytest.raises(errors.UpstreamProtocolViolation, match="too large"):
            text_of(LARGE, b'{"a":[' + b"[]," * 600_000 + b"[]]}")


@ALL
class TestEnvelope:
    @pytest.mark.parametrize(
        "payload", [None, {}, {"other": {}}, {"R": None}, {"R": {}}, {"R": {"text": ""}}, {"R": {"text": None}}]
    )
    def test_no_result_is_no_text(self, service: OcrService, payload: Any) -> None:
        body: dict[str, Any] = {"header": {"code": 0, "sid": SID}}
        if payload is not None:
            body["payload"] = {service.result_field if name == "R" else name: value for name, value in payload.items()}
        read = service.read_answer(200, json.dumps(body).encode())
        assert (read.text, read.sid) == ("", SID)

    def test_padding_is_stripped(self, service: OcrService) -> None:
        for padding in (b"\0", b"\0" * 64, b"\r\n \0\0"):
            assert service.read_answer(200, answered(service, {"pages": [], "lines": []}, padding=padding)).text == ""
        assert service.read_answer(200, answered(service, b"\0\0\0")).text == ""

    @pytest.mark.parametrize("status", [200, 400, 500, 502])
    @pytest.mark.parametrize("flat", [False, True])
    @pytest.mark.parametrize("code", [10003, 11201, 10313, "11200", 424242, -1])
    def test_codes_count_whatever_the_status(
        self, service: OcrService, status: int, flat: bool, code: int | str
    ) -> None:
        error = {"code": code, "message": "no", "sid": SID}
        body = json.dumps(error if flat else {"header": error}).encode()
        with pytest.raises(errors.UpstreamRefused) as caught:
            service.read_answer(status, body)
        assert (caught.value.code, caught.value.sid) == (int(code), SID)

    @pytest.mark.parametrize(
        ("status", "kind", "retryable"),
        [
            (401, errors.UpstreamUnreachable, False),
            (403, errors.UpstreamUnreachable, False),
            (404, errors.UpstreamUnreachable, False),
            (400, errors.UpstreamRefused, False),
            (413, errors.UpstreamRefused, False),
            (429, errors.UpstreamUnreachable, True),
            (500, errors.UpstreamUnreachable, False),
            (502, errors.UpstreamUnreachable, True),
            (200, errors.UpstreamProtocolViolation, False),
        ],
    )
    def test_gateway_messages(
        self, service: OcrService, status: int, kind: type[errors.UpstreamFailed], retryable: bool
    ) -> None:
        with pytest.raises(kind) as caught:
            service.read_answer(status, b'{"message":"HMAC signature\\ndoes not match"}')
        assert caught.value.retryable is retryable
        if isinstance(caught.value, errors.UpstreamUnreachable):
            assert caught.value.status == status
            assert "HMAC signature does not match" in caught.value.detail

    @pytest.mark.parametrize(
        ("status", "retryable"), [(200, False), (403, False), (502, True), (503, True), (504, True)]
    )
    def test_page_of_a_proxy(self, service: OcrService, status: int, retryable: bool) -> None:
        with pytest.raises(errors.UpstreamProtocolViolation) as caught:
            service.read_answer(status, HTML)
        assert caught.value.retryable is retryable

    def test_success_in_words_with_a_failing_status(self, service: OcrService) -> None:
        """A result counts; the lack of one is then no proof of an empty picture."""
        body = answer_body(service, ["好"], sid=SID)
        assert service.read_answer(502, body).text == "好"
        with pytest.raises(errors.UpstreamProtocolViolation):
            service.read_answer(502, answer_body(service, ["好"], sid=SID, has_payload=False))

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"null",
            b"5",
            b"[]",
            b"{}",
            b"[" * 20_000,
            b'{"header":{"code":true}}',
            b'{"header":{"code":"zero"}}',
            b'{"header":{"code":1.5}}',
            b'{"header":{"code":null}}',
            b'{"header":{"code":' + b"9" * 40 + b"}}",
            b'{"header":{"code":0},"payload":[]}',
            b'{"header":{"code":0}}' + b" " * MAX_BODY_BYTES,
        ],
        ids=range(13),
    )
    def test_nonsense(self, service: OcrService, body: bytes) -> None:
        with pytest.raises(errors.UpstreamProtocolViolation):
            service.read_answer(200, body)

    @pytest.mark.parametrize("text", [5, [], "***", "AAA", "语音"])
    def test_results_that_are_not_base64(self, service: OcrService, text: object) -> None:
        with pytest.raises(errors.UpstreamProtocolViolation):
            service.read_answer(200, with_text(service, text))


_NAMES = "header code message sid payload text whole_text lines pages words content document value type result"
_JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.just(0),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=8),
        st.just("text_block"),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(_NAMES.split()), inner, max_size=5)
    ),
    max_leaves=25,
)


@ALL
class TestArbitraryAnswers:
    """Whatever comes, it is a text or a failure of upstream."""

    @given(
        status=st.integers(100, 599), body=st.one_of(st.binary(), _JSON.map(lambda value: json.dumps(value).encode()))
    )
    def test_bodies(self, service: OcrService, status: int, body: bytes) -> None:
        self._read(service, status, body)

    @given(status=st.sampled_from([200, 502]), document=st.one_of(st.binary(), _JSON))
    def test_documents(self, service: OcrService, status: int, document: object) -> None:
        self._read(service, status, answered(service, document))

    @staticmethod
    def _read(service: OcrService, status: int, body: bytes) -> None:
        try:
            read = service.read_answer(status, body)
        except errors.UpstreamFailed:
            return
        assert isinstance(read.text, str)
        assert read.text == read.text.rstrip("\0 \t\r\n")


def request(service: OcrService, image: bytes = JPEG) -> dict[str, Any]:
    built: dict[str, Any] = json.loads(service.build_request(image, encoding="jpg", app_id=APP_ID))
    return built


def refusal_of(service: OcrService, body: object) -> OcrRequestError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(OcrRequestError) as caught:
        parse_ocr_request(service, raw, app_ids={APP_ID})
    return caught.value


@ALL
class TestServerHalf:
    @pytest.mark.parametrize(
        ("image", "encoding"), [(JPEG, "jpg"), (b"\x89PNG\r\n\x1a\n...", "png"), (b"BM......", "bmp")]
    )
    def test_accepts_our_requests(self, service: OcrService, image: bytes, encoding: str) -> None:
        body = service.build_request(image, encoding="jpg", app_id=APP_ID, uid="user-42")
        assert parse_ocr_request(service, body, app_ids=[APP_ID]) == (image, encoding)

    @pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"[" * 20_000])
    def test_no_json(self, service: OcrService, body: bytes) -> None:
        refused = refusal_of(service, body)
        assert (refused.http_status, refused.code) == (400, 10163)
        assert refused.message == "request body must be json"

    def test_application(self, service: OcrService) -> None:
        for app_id, message in [
            ("", "appid cannot be empty"),
            (None, "appid cannot be empty"),
            ("stranger", "app_id and api_key does not match"),
        ]:
            body = request(service)
            body["header"]["app_id"] = app_id
            refused = refusal_of(service, body)
            assert (refused.http_status, refused.code, refused.message) == (400, 10313, message)

    @pytest.mark.parametrize("missing", ["header", "parameter", "payload"])
    def test_schema(self, service: OcrService, missing: str) -> None:
        body = request(service)
        del body[missing]
        refused = refusal_of(service, body)
        assert (refused.http_status, refused.code) == (400, 10163)
        assert refused.message.startswith("parameter schema validate error: ")

    @pytest.mark.parametrize("empty", ["parameter", "payload"])
    def test_blocks_of_the_service_must_be_there(self, service: OcrService, empty: str) -> None:
        body = request(service)
        body[empty] = {}
        refused = refusal_of(service, body)
        assert (refused.http_status, refused.code) == (400, 10163)
        assert f"$.{empty}." in refused.message

    @pytest.mark.parametrize(
        ("changes", "http_status", "code"),
        [
            ({"image": ""}, 400, 10163),
            ({"image": None}, 400, 10163),
            ({"image": "A" * (MAX_IMAGE_BASE64 + 1)}, 400, 10163),
            ({"encoding": "gif"}, 400, 10163),
            ({"image": "data:image/jpeg;base64,AAAA"}, 502, 10161),
            ({"image": base64.b64encode(b"GIF89a").decode()}, 502, 10009),
        ],
    )
    def test_picture(self, service: OcrService, changes: dict[str, Any], http_status: int, code: int) -> None:
        body = request(service)
        body["payload"][service.image_field] |= changes
        refused = refusal_of(service, body)
        assert (refused.http_status, refused.code) == (http_status, code)

    @given(body=st.one_of(st.binary(), _JSON.map(lambda value: json.dumps(value).encode())))
    def test_arbitrary_bodies_are_refused(self, service: OcrService, body: bytes) -> None:
        with pytest.raises(OcrRequestError):
            parse_ocr_request(service, body, app_ids={APP_ID})


@ALL
class TestImaginaryWire:
    @pytest.mark.parametrize(
        "lines", [[], ["第一行"], ["第一行", "second line, with 2 commas, and  spaces", "第 3 行"], ["{x}", "[1]"]]
    )
    @pytest.mark.parametrize("nul_padding", [0, 7])
    def test_answers_come_out_as_they_went_in(self, service: OcrService, lines: list[str], nul_padding: int) -> None:
        read = service.read_answer(200, answer_body(service, lines, sid=SID, nul_padding=nul_padding))
        assert (read.text, read.sid) == ("\n".join(lines), SID)

    def test_missing_payload(self, service: OcrService) -> None:
        assert service.read_answer(200, answer_body(service, ["x"], sid=SID, has_payload=False)).text == ""

    @pytest.mark.parametrize("is_flat", [False, True])
    def test_refusals(self, service: OcrService, is_flat: bool) -> None:
        refused = refusal_of(service, b"")
        body = error_body(refused.code, refused.message, SID, is_flat=is_flat)
        with pytest.raises(errors.UpstreamRefused, match="request body must be json") as caught:
            service.read_answer(refused.http_status, body)
        assert (caught.value.code, caught.value.sid) == (10163, SID)
