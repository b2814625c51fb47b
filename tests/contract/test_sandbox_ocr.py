"""The sandbox's picture text over real sockets (simulator rules of the three services), without an engine."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from aiproject.sandbox.engines import CannedPictures
from aiproject.sandbox.running import SandboxAddress, SandboxThread
from sandbox_client import FAST, control, post, signed


def picture(kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (80, 60), "blue").save(file, kind)
    return file.getvalue()


KNOWN = picture("PNG")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxThread]:
    texts = {hashlib.sha256(KNOWN).hexdigest(): "第一行\nsecond line"}
    thread = SandboxThread(replace(FAST, pictures=CannedPictures(texts)))
    thread.start()
    yield thread
    thread.stop()


@pytest.fixture
def address(sandbox: SandboxThread) -> SandboxAddress:
    sandbox.faults.clear()
    assert sandbox._address is not None
    return sandbox._address


FIELDS = {
    "hh_ocr_recognize_doc": ("hh_ocr_recognize_doc", "image", "recognizeDocumentRes"),
    "sf8e6aca1": ("sf8e6aca1", "sf8e6aca1_data_1", "result"),
    "se75ocrbm": ("ocr", "image", "result"),
}


def ask(
    address: SandboxAddress, image: bytes | str, service: str = "hh_ocr_recognize_doc", **change: Any
) -> tuple[int, dict[str, Any]]:
    block, field, _ = FIELDS[service]
    content = image if isinstance(image, str) else base64.b64encode(image).decode()
    body = {
        "header": {"app_id": address.app_id, "status": 3},
        "parameter": {block: {}},
        "payload": {field: {"encoding": "jpg", "image": content, "status": 3}},
    }
    status, answer = send(address, json.dumps(body | change).encode(), service)
    return status, json.loads(answer)


def send(
    address: SandboxAddress, body: bytes, service: str = "hh_ocr_recognize_doc", media_type: str = "application/json"
) -> tuple[int, bytes]:
    url = address.ocr_url.replace("hh_ocr_recognize_doc", service)
    status, answer, _ = post(signed(address, url, method="POST"), body, media_type=media_type)
    return status, answer


def document(answer: dict[str, Any], service: str = "hh_ocr_recognize_doc") -> Any:
    text = base64.b64decode(answer["payload"][FIELDS[service][2]]["text"])
    return json.loads(text.rstrip(b"\x00"))


class TestAnswers:
    def test_intsig(self, address: SandboxAddress) -> None:
        status, answer = ask(address, KNOWN)
        assert (status, answer["header"]["code"], answer["header"]["message"]) == (200, 0, "success")
        assert document(answer)["whole_text"] == "第一行\nsecond line"
        assert [line["text"] for line in document(answer)["lines"]] == ["第一行", "second line"]

    def test_image_word(self, address: SandboxAddress) -> None:
        _, answer = ask(address, KNOWN, "sf8e6aca1")
        lines = document(answer, "sf8e6aca1")["pages"][0]["lines"]
        assert [[word["content"] for word in line["words"]] for line in lines] == [["第一行"], ["second", "line"]]

    def test_large_model(self, address: SandboxAddress) -> None:
        _, answer = ask(address, KNOWN, "se75ocrbm")
        assert document(answer, "se75ocrbm")["document"][0]["value"] == "第一行\nsecond line"

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
    def test_labelled_default_names_the_hash(self, address: SandboxAddress, kind: str) -> None:
        image = picture(kind) + b"\0"
        text = document(ask(address, image)[1])["whole_text"]
        assert text.startswith("【沙盒】")
        assert hashlib.sha256(image).hexdigest() in text

    def test_media_type_with_parameters(self, address: SandboxAddress) -> None:
        assert send(address, b"{}", media_type="application/json; charset=utf-8")[0] == 400
        assert b"10313" in send(address, b'{"header":{}}', media_type="application/json; charset=utf-8")[1]


class TestRefusals:
    def test_media_type(self, address: SandboxAddress) -> None:
        assert send(address, b"{}", media_type="text/plain") == (
            400,
            b'{"message":"content-type must be application/json"}',
        )

    def test_unknown_service(self, address: SandboxAddress) -> None:
        assert send(address, b"{}", "s00000000") == (404, b'{"message":"not found"}')

    def test_signed_as_get(self, address: SandboxAddress) -> None:
        status, body, _ = post(signed(address, address.ocr_url), b"{}")
        assert (status, body) == (401, b'{"message":"HMAC signature does not match"}')

    def test_not_json(self, address: SandboxAddress) -> None:
        status, body = send(address, b"{")
        assert (status, json.loads(body)["header"]["code"]) == (400, 10163)

    @pytest.mark.parametrize(
        ("image", "status", "code"),
        [
            ("", 400, 10163),
            ("data:image/jpeg;base64,AAAA", 502, 10161),
            ("A" * (4 * 1024 * 1024 + 4), 400, 10163),
            (b"GIF89a" + bytes(100), 502, 10009),
        ],
    )
    def test_pictures(self, address: SandboxAddress, image: bytes | str, status: int, code: int) -> None:
        given, answer = ask(address, image)
        assert (given, answer["header"]["code"]) == (status, code)
        assert "payload" not in answer

    @pytest.mark.parametrize("header", [{}, {"app_id": "foreign"}])
    def test_app_id(self, address: SandboxAddress, header: dict[str, str]) -> None:
        status, answer = ask(address, KNOWN, header=header)
        assert (status, answer["header"]["code"]) == (400, 10313)

    def test_body_of_many_megabytes(self, address: SandboxAddress) -> None:
        assert send(address, b" " * (17 * 1024 * 1024))[0] == 413


class TestFaults:
    def order(self, address: SandboxAddress, fault: str, **options: Any) -> None:
        assert control(address, "POST", "/faults", {"service": "ocr", "fault": fault, **options})[0] == 200

    def test_empty_result(self, address: SandboxAddress) -> None:
        self.order(address, "empty")
        assert document(ask(address, KNOWN)[1])["whole_text"] == ""

    def test_missing_payload(self, address: SandboxAddress) -> None:
        self.order(address, "no_payload")
        status, answer = ask(address, KNOWN)
        assert (status, set(answer), answer["header"]["code"]) == (200, {"header"}, 0)

    def test_nul_padding(self, address: SandboxAddress) -> None:
        self.order(address, "nul", n=5)
        raw = base64.b64decode(ask(address, KNOWN)[1]["payload"]["recognizeDocumentRes"]["text"])
        assert raw.endswith(b"}" + bytes(5))

    def test_error_with_502_with_200_and_flat(self, address: SandboxAddress) -> None:
        self.order(address, "error", code=11200)
        status, answer = ask(address, KNOWN)
        assert (status, answer["header"]["code"]) == (502, 11200)
        self.order(address, "error", code=11201, http=200, message="auth no enough license")
        status, answer = ask(address, KNOWN)
        assert (status, answer["header"]["code"], answer["header"]["message"]) == (200, 11201, "auth no enough license")
        self.order(address, "error", code=10003, http=200, flat=1)
        status, answer = ask(address, KNOWN)
        assert (status, answer["code"]) == (200, 10003)

    def test_slow(self, address: SandboxAddress) -> None:
        self.order(address, "slow", seconds=0.2)
        started = time.monotonic()
        assert ask(address, KNOWN)[0] == 200
        assert time.monotonic() - started >= 0.2

    def test_html_not_json_and_huge(self, address: SandboxAddress) -> None:
        self.order(address, "html", status=503)
        status, body = send(address, b"{}")
        assert (status, body[:6]) == (503, b"<html>")
        self.order(address, "not_json")
        with pytest.raises(json.JSONDecodeError):
            ask(address, KNOWN)
        self.order(address, "huge", bytes=20_000_000)
        assert len(send(address, b"{}")[1]) == 20_000_000

    def test_reset(self, address: SandboxAddress) -> None:
        self.order(address, "reset")
        with pytest.raises(OSError, match=r"reset|closed|Remote end"):
            ask(address, KNOWN)
