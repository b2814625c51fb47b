"""The existing desktop app against the server, call for call: what it sends, what it needs of the answer, when it sends
again. How it reads a stream in trouble stands in `system.test_streaming`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import partial

import pytest
import sqlalchemy as sa

from aiproject.adapters.db.schema import login_guard
from aiproject.vouchers.service import Vouchers
from system import desktop_app
from system.desktop_app import DesktopApp, Told, ask
from system.harness import PASSWORD, LocalServer
from system.samples import jpeg, pcm


async def in_thread(call: Callable[[], Told]) -> Told:
    return await asyncio.to_thread(call)


@pytest.fixture
async def app(server: LocalServer) -> DesktopApp:
    """Signed in; the name is of this kind, since the app cannot send a Chinese one in a header."""
    person = await server.person()
    app = DesktopApp(server.port)
    told = await in_thread(partial(app.login, person.username, PASSWORD))
    assert told.tries == 1
    return app


async def test_a_life(server: LocalServer) -> None:
    app = DesktopApp(server.port)
    registered = await in_thread(partial(app.register, "desk", PASSWORD, "", "软件学院"))
    assert registered.body == {"code": 0, "msg": "用户注册成功"}
    told = await in_thread(partial(app.login, "desk", PASSWORD))
    assert told.body is not None
    assert (told.body["academy"], type(told.body["code"])) == ("软件学院", int)
    assert len(app.uuid) == 32
    assert (app.tokens, app.pictures) == (1_000_000, 1000)

    shown = await asyncio.to_thread(desktop_app.ask, server.port, app.uuid, app.username, "你好")
    assert (shown.error, bool(shown.text), shown.is_last_seen) == (None, True, True)
    assert shown.total_tokens is not None
    heard = await in_thread(partial(app.voice, pcm(0.25)))
    read = await in_thread(partial(app.picture, jpeg()))
    for answer in (heard, read):
        assert answer.body is not None
        assert (answer.body["code"], type(answer.body["content"]), answer.tries) == (0, str, 1)

    async with server.database() as database:
        await Vouchers(database).add(code="DESK-ONLY", tokens=500, pic_times=2, audience="软件学院")
    redeemed = await in_thread(partial(app.redeem, "DESK-ONLY", "软件学院"))
    assert redeemed.body == {"code": 0, "msg": "兑换令牌成功"}
    # It counted for itself all the while, and is right.
    counted = app.tokens - shown.total_tokens + 500, app.pictures - 1 + 2
    await in_thread(partial(app.login, "desk", PASSWORD))
    assert (app.tokens, app.pictures) == counted


async def test_every_refusal_is_heard_at_the_first_try(server: LocalServer, app: DesktopApp) -> None:
    """It shows ``msg`` of a 200 only, and would send anything else again."""
    nobody = DesktopApp(server.port)
    nobody.uuid, nobody.username = "0" * 32, app.username
    for call, code in (
        (partial(app.register, app.username, PASSWORD), "USER_NAME_REPEAT"),
        (partial(app.register, "", ""), "APP_QUERY_METHOD_ERROR"),
        (partial(app.login, app.username, "a wrong password"), "LOGIN_ERROR"),
        (partial(app.voice, jpeg()), "FILE_FORMAT_ILLEGAL"),
        (partial(app.picture, b"no picture"), "FILE_FORMAT_ILLEGAL"),
        (partial(nobody.picture, jpeg()), "USER_NOT_FOUND"),
        (partial(app.redeem, "NO-SUCH-CODE"), "TOKEN_NOT_FOUNDUSER_NOT_FOUND"),
        (partial(nobody.redeem, "NO-SUCH-CODE"), "USER_GET_TOKEN_ERROR"),
    ):
        told = await in_thread(call)
        assert told.body is not None, code
        assert (told.body["code"], told.tries) == (code, 1)


async def test_what_is_sent_again_counts_once(server: LocalServer, app: DesktopApp) -> None:
    """After a reply that was lost on its way the app redeems and logs in once more."""
    async with server.database() as database:
        await Vouchers(database).add(code="TWICE", tokens=70)
    for expected in (0, "TOKEN_ALREADY_GET", "TOKEN_ALREADY_GET"):
        told = await in_thread(partial(app.redeem, "TWICE"))
        assert told.body is not None
        assert told.body["code"] == expected
    uuid = app.uuid
    for _ in range(2):
        await in_thread(partial(app.login, app.username, PASSWORD))
    assert (app.uuid, app.tokens) == (uuid, 1_000_070)


async def test_limits_are_heard_at_the_first_try(start_server: Callable[..., LocalServer]) -> None:
    """The right password is refused as well while a delay lasts, and the person reads for how long."""
    limited = start_server(limits="on", address_requests_per_minute=10)
    app = DesktopApp(limited.port)
    told = await in_thread(partial(app.register, "桌面用户", PASSWORD))
    assert told.body is not None
    for _ in range(6):
        await in_thread(partial(app.login, "桌面用户", "a wrong password"))
    async with limited.database() as database, database.begin() as connection:
        later = login_guard.c.blocked_until + 600_000  # a second's delay may be over on a busy machine
        await connection.execute(
            sa.update(login_guard).where(login_guard.c.blocked_until > 0).values(blocked_until=later)
        )
    delayed = await in_thread(partial(app.login, "桌面用户", PASSWORD))
    assert delayed.body is not None
    assert (delayed.body["code"], delayed.tries) == ("LOGIN_ERROR", 1)
    assert re.fullmatch("失败次数过多，请在 [56][0-9][0-9] 秒后再试", delayed.body["msg"])
    for upload in (app.voice, app.picture):  # the last two requests of this address's minute
        await in_thread(partial(upload, b""))
    for call, code in (
        (partial(app.login, "桌面用户", PASSWORD), "LOGIN_ERROR"),
        (partial(app.voice, pcm(0.01)), "TOO_MANY_REQUESTS"),
        (partial(app.picture, jpeg()), "TOO_MANY_REQUESTS"),
        (partial(app.redeem, "NO-SUCH-CODE"), "TOO_MANY_REQUESTS"),
    ):
        told = await in_thread(call)
        assert told.body is not None, code
        assert (told.body["code"], told.tries) == (code, 1)
        assert re.fullmatch("请求过于频繁，请在 [0-9]+ 秒后再试", told.body["msg"])
    # What a registration says with 200 is always shown as "用户名已存在"; with 429 the app blames the network.
    assert (await in_thread(partial(app.register, "another name", PASSWORD))).body is None
    shown = await asyncio.to_thread(partial(ask, limited.port, app.uuid, app.username, "hi"))
    assert shown.error == "请求过于频繁，请稍后再试", "of a stream it reads the words whatever the status is"
