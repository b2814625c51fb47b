"""Every bad input at every endpoint: told in JSON, never as 5xx, nothing charged, and the server serves on."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from system import wire
from system.harness import LocalServer, Person, Platform, post_json, question
from system.samples import (
    bmp,
    broken_wav,
    gif,
    jpeg,
    mp3,
    noisy_jpeg,
    padded_jpeg,
    pcm,
    png,
    wav,
    wide_png,
)

CHATS = ("/textModel/chat", "/textModel/stream")
JSON_ROUTES = (*CHATS, "/auth/register", "/auth/login")
MEGABYTE = 1024 * 1024


@pytest.fixture
async def person(server: LocalServer) -> Person:
    return await server.person()


@asynccontextmanager
async def nothing_happens(person: Person, platform: Platform) -> AsyncIterator[None]:
    """Nothing is charged and nothing reaches the platform; afterwards the person is served as ever."""
    seen = {service: platform.counts(service)["seen"] for service in ("chat", "dictation", "ocr")}
    before = await person.login()
    yield
    assert await person.login() == before
    assert {service: platform.counts(service)["seen"] for service in seen} == seen
    assert (await person.chat("still there?")).json()["code"] == 0


def refusals(answers: list[wire.Answer]) -> Iterator[dict[str, Any]]:
    """Each answer as JSON: a refusal with its code and message and nothing else."""
    for answer in answers:
        assert answer.status == 200, (answer.status, answer.body)
        found = answer.json()
        assert set(found) == {"code", "msg"}
        assert isinstance(found["code"], str)
        assert found["msg"]
        yield found


def deep(depth: int) -> bytes:
    return b'{"dialog":' + b"[" * depth + b"]" * depth + b"}"


MALFORMED = {
    "empty": b"",
    "blank": b" \n",
    "cut": b'{"uuid": "',
    "html": b"<html></html>",
    "form": b"uuid=1&username=2",
    "two": b"{}{}",
    "array": b"[]",
    "null": b"null",
    "number": b"1",
    "text": b'"uuid"',
    "not UTF-8": b'{"uuid":"\xff\xfe","username":"\xff","password":"\xff","dialog":[]}',
    "UTF-16": '{"uuid":"1"}'.encode("utf-16"),
    "deep": deep(30_000),
    "deep unclosed": b"[" * 60_000,
    "deep in a member that is ignored": b'{"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "NaN": b'{"uuid":NaN,"username":Infinity,"password":1e999,"dialog":NaN}',
    "long number": b'{"uuid":' + b"9" * 20_000 + b',"username":1,"password":1,"dialog":1}',
    "lone surrogate": rb'{"uuid":"\ud800","username":"\udfff","password":"\ud800","email":"","dialog":[]}',
    "NUL": rb'{"uuid":"\u0000","username":"\u0000","password":"\u0000","email":"","dialog":[]}',
}


@pytest.mark.parametrize("path", JSON_ROUTES)
async def test_bodies_that_are_no_call(path: str, server: LocalServer, person: Person, platform: Platform) -> None:
    async with nothing_happens(person, platform):
        kind = ("Content-Type", "application/json")
        answers = [await wire.request(server.port, "POST", path, [kind], body) for body in MALFORMED.values()]
        codes = dict(zip(MALFORMED, (found["code"] for found in refusals(answers)), strict=True))
    expected = "MODEL_ERROR" if path in CHATS else "APP_QUERY_METHOD_ERROR"
    if path == "/auth/login":  # these two are names like any other, only that nobody has them
        assert codes.pop("lone surrogate") == codes.pop("NUL") == "LOGIN_ERROR"
    assert set(codes.values()) == {expected}, codes


NO_TEXTS: tuple[object, ...] = (..., None, 5, {}, True)


@pytest.mark.parametrize("path", CHATS)
class TestDialogs:
    async def test_fields_that_are_missing_or_of_another_type(
        self, path: str, server: LocalServer, person: Person, platform: Platform
    ) -> None:
        whole = person.call("hi")
        turn = {"role": "user", "content": "hi"}
        wrong: list[tuple[str, object]] = [
            *itertools.product(whole, NO_TEXTS),
            ("uuid", ["x"]),
            ("dialog", []),
            ("dialog", "hi"),
            ("dialog", [[]]),
            ("dialog", [None]),
            ("dialog", ["hi"]),
            ("dialog", [{}]),
            ("dialog", [{"role": "user"}]),
            ("dialog", [{"content": "hi"}]),
            ("dialog", [{**turn, "content": None}]),
            ("dialog", [{**turn, "content": 5}]),
            ("dialog", [{**turn, "content": ["hi"]}]),
            ("dialog", [{**turn, "role": "robot"}]),
            ("dialog", [{**turn, "role": None}]),
            ("dialog", [{**turn, "content": ""}]),
            ("dialog", [{**turn, "content": " \n\t　"}]),
            ("dialog", [{**turn, "role": "assistant"}]),
            ("dialog", [{**turn, "role": "system"}]),
            ("dialog", [turn, {**turn, "role": "assistant"}]),
            ("dialog", [turn] * 2001),
            ("dialog", [{**turn, "content": "half \ud83d"}]),
        ]
        async with nothing_happens(person, platform):
            answers = []
            for field, value in wrong:
                call = {key: old for key, old in {**whole, field: value}.items() if old is not ...}
                answers.append(await post_json(server.port, path, call))
            assert {found["code"] for found in refusals(answers)} == {"MODEL_ERROR"}

    async def test_who_does_not_belong_together(
        self, path: str, server: LocalServer, person: Person, platform: Platform
    ) -> None:
        other = await server.person()
        wrong = [
            {"uuid": other.uuid},
            {"uuid": person.uuid[:-1]},
            {"uuid": ""},
            {"uuid": "\u0000"},
            {"uuid": "ü" * 5000},
            {"username": other.username},
            {"username": ""},
            {"username": "\u0000"},
            {"username": person.username + "\u0000"},
            {"username": "n" * 100_000},
        ]
        async with nothing_happens(person, platform):
            answers = [await post_json(server.port, path, {**person.call("hi"), **change}) for change in wrong]
            for found in refusals(answers):
                assert found == {"code": "USER_NOT_FOUND", "msg": "找不到指定用户"}

    async def test_a_name_in_another_spelling_is_the_same(self, path: str, server: LocalServer, person: Person) -> None:
        for change in ({"username": f" {person.username.upper()} "}, {"uuid": f" {person.uuid}\n"}):
            answer = await post_json(server.port, path, {**person.call("hi"), **change, "more": ["is", "ignored"]})
            assert answer.status == 200
            assert b"TOKEN" not in answer.body
            assert b"MODEL_ERROR" not in answer.body
            assert b"USER_NOT_FOUND" not in answer.body

    async def test_without_tokens_nothing_is_asked(
        self, path: str, server: LocalServer, person: Person, platform: Platform
    ) -> None:
        for tokens in (0, 1):
            await server.set_balance(person, tokens=tokens)
            seen = platform.counts("chat")["seen"]
            answers = [await post_json(server.port, path, person.call("a question of more than one token"))]
            assert list(refusals(answers)) == [{"code": "TOKEN_NOT_ENOUGH", "msg": "用户token额度不足"}]
            assert platform.counts("chat")["seen"] == seen
            assert await person.tokens() == tokens

    async def test_more_than_the_model_takes_is_told_in_words(
        self, path: str, server: LocalServer, person: Person
    ) -> None:
        answers = [await post_json(server.port, path, person.call("长" * 30_000))]
        [found] = refusals(answers)
        assert found["code"] == "MODEL_ERROR"
        assert "缩短" in found["msg"]
        assert await person.tokens() == 1_000_000


async def test_dialogs_of_every_shape_that_a_platform_takes_are_answered(person: Person, platform: Platform) -> None:
    system, user, assistant = ({"role": role, "content": role} for role in ("system", "user", "assistant"))
    empty = {"role": "system", "content": ""}
    for dialog, roles in (
        (question("hi"), ["user"]),
        ([user], ["user"]),
        ([empty, system, user], ["system", "user"]),
        ([user, assistant, user], ["user", "assistant", "user"]),
        ([user, system, user], ["system", "user"]),
        ([assistant, user], ["user"]),
        ([user, {"role": "assistant", "content": " "}, user], ["user"]),
    ):
        answer = (await person.chat(dialog)).json()
        assert answer["code"] == 0, (dialog, answer)
        assert list(platform.last("chat")["roles"]) == roles


class TestSound:
    PATH = "/voiceModel/chat"

    async def test_what_is_not_heard(self, person: Person, server: LocalServer, platform: Platform) -> None:
        expected = {
            "empty": (b"", "GET_FILE_FAIL"),
            "odd": (pcm(0.1)[:-1], "FILE_FORMAT_ILLEGAL"),
            "61 s": (pcm(61), "FILE_FORMAT_ILLEGAL"),
            "61 s in a WAV": (wav(61, rate=16000, channels=1), "FILE_FORMAT_ILLEGAL"),
            "JPEG": (jpeg(), "FILE_FORMAT_ILLEGAL"),
            "MP3": (mp3(), "FILE_FORMAT_ILLEGAL"),
            "broken WAV": (broken_wav(), "FILE_FORMAT_ILLEGAL"),
        }
        async with nothing_happens(person, platform):
            answers = [await person.voice(data) for data, _ in expected.values()]
            # In a form, a file without a byte is a recording of nothing.
            form = [wire.multipart(data) for data, _ in expected.values() if data]
            answers += [await wire.request(server.port, "POST", self.PATH, [kind], body) for kind, body in form]
            codes = [found["code"] for found in refusals(answers)]
        wanted = [code for _, code in expected.values()]
        assert codes == wanted + wanted[1:]

    async def test_a_rate_that_does_not_exist(self, person: Person, platform: Platform) -> None:
        async with nothing_happens(person, platform):
            answers = [
                await person.voice(pcm(0.1), query=f"?rate={rate}") for rate in ("44100", "x", "-1", "%00", "%D9%A8")
            ]
            found = list(refusals(answers))
        assert {answer["code"] for answer in found} == {"AUDIO_TO_TEXT_ERROR"}

    async def test_forms_that_hold_no_file(self, person: Person, server: LocalServer, platform: Platform) -> None:
        async with nothing_happens(person, platform):
            answers = [
                await wire.request(server.port, "POST", self.PATH, headers, body)
                for headers, body in bad_forms(pcm(), empty=False)
            ]
            assert {found["code"] for found in refusals(answers)} == {"GET_FILE_FAIL"}


class TestPictures:
    PATH = "/PictureToTextModel/chat"

    async def test_what_is_not_read(self, person: Person, server: LocalServer, platform: Platform) -> None:
        expected = {
            "empty": (b"", "GET_FILE_FAIL"),
            "GIF": (gif(), "FILE_FORMAT_ILLEGAL"),
            "text": (b"this is no picture", "FILE_FORMAT_ILLEGAL"),
            "HTML": (b"<html><img src=x></html>", "FILE_FORMAT_ILLEGAL"),
            "PCM": (pcm(0.1), "FILE_FORMAT_ILLEGAL"),
            "truncated JPEG": (jpeg()[: len(jpeg()) // 2], "FILE_FORMAT_ILLEGAL"),
            "truncated PNG": (png()[: len(png()) // 2], "FILE_FORMAT_ILLEGAL"),
            "truncated BMP": (bmp()[: len(bmp()) // 2], "FILE_FORMAT_ILLEGAL"),
            "a JPEG's first bytes": (b"\xff\xd8\xff", "FILE_FORMAT_ILLEGAL"),
            "over 50 megapixels": (wide_png(), "FILE_FORMAT_ILLEGAL"),
        }
        async with nothing_happens(person, platform):
            answers = [await person.picture(data) for data, _ in expected.values()]
            for data, _ in expected.values():
                kind, body = wire.multipart(data, filename="图片.jpg")
                answers.append(await wire.request(server.port, "POST", self.PATH, [*person.headers, kind], body))
            codes = [found["code"] for found in refusals(answers)]
        assert codes == [code for _, code in expected.values()] * 2

    async def test_over_16_megabytes_is_413_and_just_below_is_read(self, person: Person, platform: Platform) -> None:
        async with nothing_happens(person, platform):
            answer = await person.picture(padded_jpeg(16 * MEGABYTE + 1))
            assert answer.status == 413
            assert answer.json()["code"] == "REQUEST_TOO_LARGE"
        assert (await person.picture(padded_jpeg(16 * MEGABYTE))).json()["code"] == 0

    async def test_what_the_platform_does_not_take_is_made_to_fit(self, person: Person, platform: Platform) -> None:
        assert len(noisy_jpeg()) > 3 * MEGABYTE
        assert (await person.picture(noisy_jpeg())).json()["code"] == 0
        assert platform.last("ocr")["bytes"] <= 3 * MEGABYTE

    async def test_who_does_not_belong_together(self, person: Person, server: LocalServer, platform: Platform) -> None:
        uuid, name = ("uuid", person.uuid), ("username", person.username)
        wrong: list[list[wire.Header]] = [
            [],
            [uuid],
            [name],
            [("uuid", "0" * 32), name],
            [("uuid", ""), name],
            [uuid, ("username", "somebody else")],
            [uuid, ("username", "%00")],
            [uuid, ("username", "%ED%A0%80")],
            [uuid, ("username", b"\xff\xfe")],
            [uuid, ("username", "n" * 3000)],
            [("uuid", b"\xe4\xb8\xad" * 30), name],
        ]
        async with nothing_happens(person, platform):
            answers = [await wire.request(server.port, "POST", self.PATH, headers, jpeg()) for headers in wrong]
            for found in refusals(answers):
                assert found == {"code": "USER_NOT_FOUND", "msg": "找不到指定用户"}

    async def test_forms_that_hold_no_file(self, person: Person, server: LocalServer, platform: Platform) -> None:
        async with nothing_happens(person, platform):
            answers = [
                await wire.request(server.port, "POST", self.PATH, [*person.headers, *headers], body)
                for headers, body in bad_forms(jpeg())
            ]
            assert {found["code"] for found in refusals(answers)} == {"GET_FILE_FAIL"}


def bad_forms(content: bytes, *, empty: bool = True) -> list[tuple[list[wire.Header], bytes]]:
    kind, whole = wire.multipart(content)
    other_kind, other_field = wire.multipart(content, field="picture")
    plain = [("Content-Type", "multipart/form-data")]
    return [
        ([other_kind], other_field),
        *(([kind], body) for kind, body in [wire.multipart(b"")] if empty),
        ([kind], whole[: len(whole) // 2]),
        ([kind], whole[:30]),
        ([kind], b"no form at all"),
        ([kind], b""),
        (list(plain), whole),
        ([("Content-Type", "multipart/form-data; boundary=")], whole),
        ([("Content-Type", f"multipart/form-data; boundary={'b' * 300}")], whole),
        ([("Content-Type", "multipart/form-data; boundary=another")], whole),
    ]


async def test_a_hundred_bad_calls_at_once_leave_nothing(server: LocalServer, person: Person) -> None:
    bodies = list(MALFORMED.values())
    calls = [wire.request(server.port, "POST", JSON_ROUTES[n % 3], [], bodies[n % len(bodies)]) for n in range(100)]
    assert {answer.status for answer in await asyncio.gather(*calls)} == {200}
    assert json.loads((await person.chat("hi")).body)["code"] == 0
    await server.settles()
