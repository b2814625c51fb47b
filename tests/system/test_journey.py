"""A person's way through the whole system, on each of the four databases, with exact arithmetic."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from pydantic import SecretStr

from aiproject.sandbox.answers import make_answer
from system.harness import PASSWORD, LocalServer, Person, Platform, post_json
from system.samples import jpeg, pcm


async def test_a_person_registers_logs_in_and_uses_everything(
    database_url: str, start_server: Callable[..., LocalServer], platform: Platform
) -> None:
    server = start_server(
        database_url=SecretStr(database_url), signup_tokens=5000, signup_pic_times=2, signup_voice_seconds=3
    )
    registration = {"username": "小明", "password": PASSWORD, "email": "ming@example.com", "academy": "软件学院"}
    answer = await post_json(server.port, "/auth/register", registration)
    assert answer.json() == {"code": 0, "msg": "用户注册成功"}

    login = (await post_json(server.port, "/auth/login", {"username": "小明", "password": PASSWORD})).json()
    uuid = login.pop("uuid")
    assert len(uuid) == 32
    assert login == {
        "code": 0,
        "msg": "用户登录成功",
        "username": "小明",
        "email": "ming@example.com",
        "academy": "软件学院",
        "tokens": 5000,
        "picTimes": 2,
    }
    person = Person(server.port, "小明", uuid)

    chat = (await person.chat("今天天气怎么样？")).json()
    assert chat["code"] == 0
    assert chat["msg"] == "文本大模型回复成功"
    assert chat["content"] == make_answer("今天天气怎么样？", turn=1)
    assert chat["consume_token"] > 0
    assert set(chat) == {"code", "msg", "content", "consume_token"}

    frames = (await person.stream("How are you?")).frames()
    text = "".join(element["content"] for frame in frames for element in frame["payload"]["choices"]["text"])
    assert text == make_answer("How are you?", turn=1)
    streamed = frames[-1]["payload"]["usage"]["text"]["total_tokens"]

    voice = (await person.voice(pcm(1.5))).json()
    assert voice["code"] == 0
    assert voice["msg"] == "请求成功"
    assert "1.5" in voice["content"]
    assert set(voice) == {"code", "msg", "content"}

    picture = (await person.picture(jpeg())).json()
    assert picture["code"] == 0
    assert hashlib.sha256(jpeg()).hexdigest()[:12] in picture["content"]
    assert set(picture) == {"code", "msg", "content"}

    after = await person.login()
    assert after["tokens"] == 5000 - chat["consume_token"] - streamed
    assert after["picTimes"] == 1

    # What is left is 1.5 s of sound and one picture: the next of each passes, the one after it does not.
    assert (await person.voice(pcm(1.6))).json()["code"] == "VOICE_SECONDS_NOT_ENOUGH"
    assert (await person.voice(pcm(1.5))).json()["code"] == 0
    assert (await person.voice(pcm(0.1))).json()["code"] == "VOICE_SECONDS_NOT_ENOUGH"
    assert (await person.picture(jpeg())).json()["code"] == 0
    assert (await person.picture(jpeg())).json() == {
        "code": "PIC_TIMES_NOT_ENOUGH",
        "msg": "用户文字识别可用额度不足",
    }
    assert await person.pictures() == 0
    assert platform.counts("ocr")["open"] == 0


async def test_odd_names_are_refused_or_work_on_every_database(
    database_url: str, start_server: Callable[..., LocalServer]
) -> None:
    server = start_server(database_url=SecretStr(database_url))
    for name in ("a\x00b", "name\ud800", "a" * 51, "   ", "ﷺ" * 50):
        entry = {"username": name, "password": PASSWORD, "email": "e@example.com"}
        assert (await post_json(server.port, "/auth/register", entry)).json()["code"] == "APP_QUERY_METHOD_ERROR", name
        login = (await post_json(server.port, "/auth/login", entry)).json()
        assert login == {"code": "LOGIN_ERROR", "msg": "用户登录失败"}, name
        call = {"uuid": "0" * 32, "username": name, "dialog": [{"role": "user", "content": "hi"}]}
        chat = (await post_json(server.port, "/textModel/chat", call)).json()
        assert chat["code"] in ("USER_NOT_FOUND", "MODEL_ERROR"), name
    for name in ("李 雷%\\_", "👩‍👩‍👧‍👦𠮷野", "O'Brien\";", "İ" * 25, "名" * 50):
        person = await server.person(name)
        assert (await person.login())["username"] == name
        assert (await person.chat("hi")).json()["code"] == 0, name
        repeated = {"username": name.upper(), "password": PASSWORD, "email": ""}
        assert (await post_json(server.port, "/auth/register", repeated)).json()["code"] == "USER_NAME_REPEAT", name
