"""The ways in which apps send sound and pictures, and how they name their user in headers."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from urllib.parse import quote

import pytest
import requests

from system import wire
from system.harness import PASSWORD, LocalServer, Person, Platform
from system.samples import bmp, header_only_wav, jpeg, pcm, png, wav

VOICE = "/voiceModel/chat"
PICTURE = "/PictureToTextModel/chat"

TYPES = ("application/x-www-form-urlencoded", "application/octet-stream", "image/jpeg", "application/json", "x", None)


def kind(content_type: str | None) -> list[wire.Header]:
    return [] if content_type is None else [("Content-Type", content_type)]


class TestPictures:
    @pytest.mark.parametrize("content_type", TYPES)
    async def test_a_raw_body_of_any_type(self, server: LocalServer, platform: Platform, content_type: str) -> None:
        person = await server.person()
        headers = [*person.headers, *kind(content_type)]
        answer = (await wire.request(server.port, "POST", PICTURE, headers, jpeg())).json()
        assert (answer["code"], answer["msg"]) == (0, "请求成功")
        assert platform.last("ocr")["sha256"] == hashlib.sha256(jpeg()).hexdigest()
        assert await person.pictures() == 999

    async def test_every_kind_of_picture_whatever_its_name(self, server: LocalServer, platform: Platform) -> None:
        person = await server.person()
        for data in (jpeg(), png(), bmp()):
            header, body = wire.multipart(data, filename="不是图片.txt")
            answer = await wire.request(server.port, "POST", PICTURE, [*person.headers, header], body)
            assert answer.json()["code"] == 0
            assert platform.last("ocr")["sha256"] == hashlib.sha256(data).hexdigest()

    async def test_a_chunked_body(self, server: LocalServer, platform: Platform) -> None:
        person = await server.person()
        pieces = [jpeg()[n : n + 100] for n in range(0, len(jpeg()), 100)]
        headers: list[wire.Header] = [*person.headers, ("Transfer-Encoding", "chunked")]
        answer = await wire.request(server.port, "POST", PICTURE, headers, wire.chunked(pieces))
        assert answer.json()["code"] == 0
        assert platform.last("ocr")["sha256"] == hashlib.sha256(jpeg()).hexdigest()

    async def test_a_form_with_other_fields_around_the_file(self, server: LocalServer, platform: Platform) -> None:
        person = await server.person()
        header, body = wire.multipart(jpeg(), filename="图片.jpg", others=[("uuid", "x"), ("备注", "中文")])
        answer = await wire.request(server.port, "POST", PICTURE, [*person.headers, header], body)
        assert answer.json()["code"] == 0
        assert platform.last("ocr")["sha256"] == hashlib.sha256(jpeg()).hexdigest()

    async def test_a_picture_without_a_byte_is_none(self, server: LocalServer) -> None:
        person = await server.person()
        header, body = wire.multipart(b"")
        answer = await wire.request(server.port, "POST", PICTURE, [*person.headers, header], body)
        assert answer.json() == {"code": "GET_FILE_FAIL", "msg": "表单字段 file 为空"}

    def test_as_the_desktop_app_sends_it(self, server: LocalServer, platform: Platform) -> None:
        headers = register(server, "desktop")
        files = {"file": NamedBytes(jpeg(), "C:/用户/图片.jpg")}
        url = f"http://127.0.0.1:{server.port}{PICTURE}"
        answer = requests.post(url, files=files, headers=headers, timeout=10).json()
        assert answer["code"] == 0
        assert answer["content"]
        assert platform.last("ocr")["sha256"] == hashlib.sha256(jpeg()).hexdigest()

    def test_as_curl_sends_it(self, server: LocalServer) -> None:
        headers = {**register(server, "curl"), "Content-Type": "application/x-www-form-urlencoded", "Expect": ""}
        url = f"http://127.0.0.1:{server.port}{PICTURE}"
        assert requests.post(url, data=jpeg(), headers=headers, timeout=10).json()["code"] == 0


class TestNamesInHeaders:
    @pytest.mark.parametrize("name", ["张三 丰", "Müller", "50%25 off", "a+b c", "𠮷野家"])
    async def test_raw_and_percent_encoded(self, server: LocalServer, name: str) -> None:
        person = await server.person(name)
        uuid = ("uuid", person.uuid)
        for value in (name.encode(), quote(name).encode(), quote(name, safe="").encode()):
            answer = await wire.request(server.port, "POST", PICTURE, [uuid, ("username", value)], jpeg())
            assert answer.json()["code"] == 0, value

    async def test_latin_1_as_many_libraries_send_it(self, server: LocalServer) -> None:
        person = await server.person("Jürgen Großmann")
        headers: list[wire.Header] = [("uuid", person.uuid), ("username", person.username.encode("latin-1"))]
        assert (await wire.request(server.port, "POST", PICTURE, headers, jpeg())).json()["code"] == 0

    async def test_header_names_have_no_case_and_values_are_trimmed(self, server: LocalServer) -> None:
        person = await server.person("Trimmed Header")
        headers: list[wire.Header] = [("UUID", f"  {person.uuid} "), ("UserName", "  trimmed HEADER  ")]
        assert (await wire.request(server.port, "POST", PICTURE, headers, jpeg())).json()["code"] == 0


class TestSound:
    @pytest.mark.parametrize("content_type", TYPES)
    async def test_a_raw_body_of_any_type_without_any_account(
        self, server: LocalServer, platform: Platform, content_type: str
    ) -> None:
        answer = (await wire.request(server.port, "POST", VOICE, kind(content_type), pcm(2.0))).json()
        assert (answer["code"], answer["msg"], set(answer)) == (0, "请求成功", {"code", "msg", "content"})
        assert platform.last("dictation")["audio_seconds"] == pytest.approx(2.0)

    async def test_a_chunked_body(self, server: LocalServer, platform: Platform) -> None:
        pieces = [pcm(1.0)[n : n + 999] for n in range(0, 32000, 999)]
        answer = await wire.request(
            server.port, "POST", VOICE, [("Transfer-Encoding", "chunked")], wire.chunked(pieces)
        )
        assert answer.json()["code"] == 0
        assert platform.last("dictation")["audio_seconds"] == pytest.approx(1.0)

    async def test_wrong_headers_are_as_good_as_none(self, server: LocalServer) -> None:
        for headers in ([("uuid", "x")], [("uuid", "0" * 32), ("username", "nobody")], [("username", b"\xff")]):
            answer = await wire.request(server.port, "POST", VOICE, headers, pcm(0.5))
            assert answer.json()["code"] == 0

    def test_as_the_desktop_app_sends_it(self, server: LocalServer, platform: Platform) -> None:
        files = {"file": NamedBytes(pcm(1.0), "20240928120000.pcm")}
        headers = register(server, "desktop voice")
        url = f"http://127.0.0.1:{server.port}{VOICE}"
        answer = requests.post(url, files=files, headers=headers, timeout=10).json()
        assert answer["code"] == 0
        assert answer["content"]
        assert platform.last("dictation")["audio_seconds"] == pytest.approx(1.0)

    async def test_telephone_sound_and_wav_files(self, server: LocalServer, platform: Platform) -> None:
        person = await server.person()
        assert (await person.voice(pcm(1.0, rate=8000), query="?rate=8000")).json()["code"] == 0
        assert platform.last("dictation")["sample_rate"] == 8000
        assert platform.last("dictation")["audio_seconds"] == pytest.approx(1.0)
        for data in (wav(1.0), wav(1.0, rate=48000, channels=1), wav(1.0, rate=16000, channels=1)):
            assert (await person.voice(data)).json()["code"] == 0
            assert platform.last("dictation")["sample_rate"] == 16000
            assert platform.last("dictation")["audio_seconds"] == pytest.approx(1.0, abs=0.05)

    @pytest.mark.timeout(20)
    async def test_a_minute_is_heard_whole_and_in_no_minute(self, server: LocalServer, platform: Platform) -> None:
        person = await server.person()
        assert (await person.voice(pcm(60.0))).json()["code"] == 0
        assert platform.last("dictation")["audio_seconds"] == pytest.approx(60.0)

    async def test_silence_is_an_empty_text(self, server: LocalServer, platform: Platform) -> None:
        platform.order("dictation", "silence")
        person = await server.person()
        assert (await person.voice(pcm(1.0))).json() == {"code": 0, "msg": "请求成功", "content": ""}

    @pytest.mark.parametrize("data", [b"", header_only_wav(), b"#!AMR\n"], ids=["no bytes", "WAV header", "AMR header"])
    async def test_a_recording_of_nothing_is_silence_and_free(
        self, start_server: Callable[..., LocalServer], platform: Platform, data: bytes
    ) -> None:
        """A desktop app uploads one when its button is only tapped, and ends if that is refused."""
        server = start_server(signup_voice_seconds=0)  # who has no seconds left may tap as well
        person: Person = await server.person()
        seen = platform.counts("dictation")["seen"]
        header, body = wire.multipart(data, filename="20240928120000.wav")
        for headers in ([], person.headers, [*person.headers, ("Idempotency-Key", "tapped")]):
            for _ in range(2):
                answer = await wire.request(server.port, "POST", VOICE, [*headers, header], body)
                assert (answer.status, answer.json()) == (200, {"code": 0, "msg": "请求成功", "content": ""})
        assert platform.counts("dictation")["seen"] == seen

    async def test_a_key_that_was_used_for_silence_is_used(self, server: LocalServer, platform: Platform) -> None:
        person = await server.person()
        header, body = wire.multipart(b"")
        headers = [*person.headers, ("Idempotency-Key", "tapped")]
        assert (await wire.request(server.port, "POST", VOICE, [*headers, header], body)).json()["code"] == 0
        header, body = wire.multipart(pcm(0.1))
        refused = (await wire.request(server.port, "POST", VOICE, [*headers, header], body)).json()
        assert refused == {"code": "AUDIO_TO_TEXT_ERROR", "msg": "该 Idempotency-Key 已用于另一个请求"}

    async def test_the_receipt_of_silence_says_that_nothing_was_charged(self, server: LocalServer) -> None:
        person = await server.person()
        header, body = wire.multipart(b"")
        answer = await wire.request(server.port, "POST", VOICE, [*person.headers, header], body)
        path = f"/v1/usage/{answer.header('x-request-id')}"
        (attempt,) = (await wire.request(server.port, "GET", path, person.headers)).json()["attempts"]
        assert (attempt["held"], attempt["charged"], attempt["outcome"]) == (0, 0, "finished")

    async def test_nothing_at_all_is_no_recording(self, server: LocalServer) -> None:
        person = await server.person()
        assert (await person.voice(b"")).json() == {"code": "GET_FILE_FAIL", "msg": "请求体为空，没有收到文件"}

    async def test_with_names_demanded_nobody_is_heard_without(self, start_server: Callable[..., LocalServer]) -> None:
        server = start_server(voice_anonymous=False)
        answer = await wire.request(server.port, "POST", VOICE, [], pcm(0.5))
        assert answer.json() == {"code": "USER_NOT_FOUND", "msg": "找不到指定用户"}
        person: Person = await server.person()
        assert (await person.voice(pcm(0.5))).json()["code"] == 0

    async def test_callers_without_an_account_are_limited_by_address(
        self, start_server: Callable[..., LocalServer]
    ) -> None:
        server = start_server(limits="on")
        person = await server.person()
        answers = [await wire.request(server.port, "POST", VOICE, [], pcm(0.01)) for _ in range(61)]
        assert [answer.status for answer in answers] == [200] * 61
        assert [answer.json()["code"] for answer in answers] == [0] * 60 + ["TOO_MANY_REQUESTS"]
        assert int(answers[-1].header("retry-after") or 0) >= 1
        assert (await person.voice(pcm(0.01))).json()["code"] == 0


class NamedBytes(io.BytesIO):
    """Bytes with a name, as `requests` finds it on an open file."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


def register(server: LocalServer, name: str) -> dict[str, str]:
    """Open an account as the desktop app does; return the headers that it sends with uploads."""
    base = f"http://127.0.0.1:{server.port}/auth"
    entry = {"username": name, "password": PASSWORD, "email": "", "academy": ""}
    assert requests.post(f"{base}/register", json=entry, timeout=10).json()["code"] == 0
    found = requests.post(f"{base}/login", json={"username": name, "password": PASSWORD}, timeout=10).json()
    return {"uuid": found["uuid"], "username": found["username"]}
