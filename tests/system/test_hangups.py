"""Clients that go away or do not read: upstream is let go, nothing is left behind, the books are kept."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import pytest

from aiproject.sandbox.answers import make_answer
from system import wire
from system.harness import LocalServer, Person, Platform, estimated, eventually, open_sockets, question
from system.samples import jpeg, pcm

SLOW = "tell me a long story [[fault:slow seconds=0.05]] [[fault:frames n=400]]"  # 20 s
TEXT = make_answer(SLOW, turn=1) * 9
SHORT = "tell me a short story [[fault:slow seconds=0.03]] [[fault:frames n=30]]"  # 1 s
PATIENCE = 3.0  # seconds for what should take some milliseconds, or one second


@pytest.fixture
async def person(server: LocalServer) -> Person:
    return await server.person()


async def upstream_is_let_go(
    platform: Platform, before: dict[str, int], way: str, count: int = 1, *, seconds: float = PATIENCE
) -> None:
    """Wait for the end of ``count`` calls, which all ended in one way: ``completed`` or ``closed_early``."""
    await eventually(lambda: platform.counts("chat")["open"] == 0, "upstream's connection is closed", seconds=seconds)
    now = platform.counts("chat")
    ended = {name: now[name] - before[name] for name in ("completed", "closed_early", "errors")}
    assert {name: number for name, number in ended.items() if number} == {way: count}


async def balance_becomes(person: Person, tokens: range) -> int:
    """Wait for the booking, which comes after the hang-up."""
    deadline = time.monotonic() + PATIENCE
    while (now := await person.tokens()) not in tokens:
        assert time.monotonic() < deadline, (now, tokens)
        await asyncio.sleep(0.05)
    return now


async def cost_of(server: LocalServer, asked: str) -> int:
    """What somebody else pays who stays to the end."""
    answer = (await (await server.person()).chat(asked)).json()
    assert answer["code"] == 0
    return int(answer["consume_token"])


class TestReadOn:
    """Somebody who hangs up has ordered an answer: it is read to its end, for a while, and charged as it is."""

    @pytest.mark.parametrize("way", ["close", "reset"])
    async def test_everything_is_let_go_at_the_end_and_the_real_usage_is_charged(
        self, server: LocalServer, person: Person, platform: Platform, way: str
    ) -> None:
        cost = await cost_of(server, SHORT)
        await server.settles()
        sockets = open_sockets()
        before = platform.counts("chat")
        async with wire.Connection(person.port) as connection:
            connection.ask_json("/textModel/stream", person.call(SHORT))
            answer = await connection.head()
            for _ in range(4):
                await connection.chunk(answer)
            if way == "reset":
                connection.reset()
        await asyncio.sleep(0.2)
        assert platform.counts("chat")["open"] == 1, "read on"
        await upstream_is_let_go(platform, before, "completed")
        await server.settles()
        await eventually(lambda: open_sockets() <= sockets, "every socket is closed", seconds=PATIENCE)
        left = await balance_becomes(person, range(1_000_000 - cost, 1_000_000 - cost + 1))
        await asyncio.sleep(0.2)
        assert await person.tokens() == left, "charged once"
        assert (await person.chat("still there?")).json()["code"] == 0

    async def test_server_sent_events_too(self, server: LocalServer, person: Person, platform: Platform) -> None:
        before = platform.counts("chat")
        async with wire.Connection(person.port) as connection:
            connection.ask_json("/textModel/stream", person.call(SHORT), [("Accept", "text/event-stream")])
            await connection.chunk(await connection.head())
        await upstream_is_let_go(platform, before, "completed")
        await server.settles()

    async def test_a_chat_whose_client_goes(self, server: LocalServer, person: Person, platform: Platform) -> None:
        cost = await cost_of(server, SHORT)
        before = platform.counts("chat")
        await ask_and_leave(person, platform)
        await upstream_is_let_go(platform, before, "completed")
        await server.settles()
        assert await person.tokens() == 1_000_000 - cost

    async def test_fifty_at_once(self, server: LocalServer, person: Person, platform: Platform) -> None:
        cost = await cost_of(server, SHORT)
        await server.settles()
        sockets = open_sockets()
        before = platform.counts("chat")
        await fifty_leave(person, SHORT)
        await upstream_is_let_go(platform, before, "completed", 50)
        await server.settles()
        await eventually(lambda: open_sockets() <= sockets, "every socket is closed")
        assert await person.tokens() == 1_000_000 - 50 * cost

    async def test_not_longer_than_is_set(self, start_server: Callable[..., LocalServer], platform: Platform) -> None:
        server = start_server(client_gone_drain=0.7)
        person = await server.person()
        before = platform.counts("chat")
        seen = await read_some_and_leave(person, "close")
        left_at = time.monotonic()
        await upstream_is_let_go(platform, before, "closed_early")
        assert time.monotonic() - left_at > 0.6
        await server.settles()
        # Some 14 frames came after the client had gone, and they are charged.
        least, most = estimated(question(SLOW), seen + TEXT[:6]), estimated(question(SLOW), TEXT[:60])
        await balance_becomes(person, range(1_000_000 - most, 1_000_000 - least + 1))

    async def test_an_answer_that_breaks_off_meanwhile_is_free(
        self, server: LocalServer, person: Person, platform: Platform
    ) -> None:
        before = platform.counts("chat")
        async with wire.Connection(person.port) as connection:
            connection.ask_json("/textModel/stream", person.call("[[fault:slow seconds=0.3]] [[fault:truncate]]"))
            await connection.chunk(await connection.head())
        await upstream_is_let_go(platform, before, "errors")
        await server.settles()
        assert await person.tokens() == 1_000_000


class TestCutOff:
    """With ``AIPROJECT_CLIENT_GONE_DRAIN=0`` upstream is let go at once, and what it has generated is charged."""

    @pytest.fixture
    def server(self, start_server: Callable[..., LocalServer]) -> LocalServer:
        return start_server(client_gone_drain=0)

    @pytest.mark.parametrize("way", ["close", "reset"])
    async def test_everything_is_let_go_and_what_was_generated_is_charged(
        self, server: LocalServer, person: Person, platform: Platform, way: str
    ) -> None:
        await server.settles()
        sockets = open_sockets()
        before = platform.counts("chat")
        seen = await read_some_and_leave(person, way)
        await upstream_is_let_go(platform, before, "closed_early")
        await server.settles()
        await eventually(lambda: open_sockets() <= sockets, "every socket is closed", seconds=PATIENCE)
        least, most = estimated(question(SLOW), seen), estimated(question(SLOW), TEXT[:60])
        left = await balance_becomes(person, range(1_000_000 - most, 1_000_000 - least + 1))
        await asyncio.sleep(0.2)
        assert await person.tokens() == left, "charged once"
        assert (await person.chat("still there?")).json()["code"] == 0

    async def test_server_sent_events_too(self, server: LocalServer, person: Person, platform: Platform) -> None:
        before = platform.counts("chat")
        async with wire.Connection(person.port) as connection:
            connection.ask_json("/textModel/stream", person.call(SLOW), [("Accept", "text/event-stream")])
            await connection.chunk(await connection.head())
        await upstream_is_let_go(platform, before, "closed_early")
        await server.settles()

    async def test_a_chat_whose_client_goes(self, server: LocalServer, person: Person, platform: Platform) -> None:
        before = platform.counts("chat")
        await ask_and_leave(person, platform, SLOW)
        await upstream_is_let_go(platform, before, "closed_early")
        await server.settles()
        prompt = estimated(question(SLOW), "")
        left = await balance_becomes(person, range(1_000_000 - prompt - 30, 1_000_000 - prompt + 1))
        assert left < 1_000_000

    @pytest.mark.timeout(60)
    async def test_fifty_at_once(self, server: LocalServer, person: Person, platform: Platform) -> None:
        await server.settles()
        sockets = open_sockets()
        before = platform.counts("chat")
        await fifty_leave(person, SLOW)
        await upstream_is_let_go(platform, before, "closed_early", 50)
        await server.settles()
        await eventually(lambda: open_sockets() <= sockets, "every socket is closed")
        assert (await person.chat("still there?")).json()["code"] == 0

    async def test_who_gave_a_key_gets_the_whole_answer_later(
        self, server: LocalServer, person: Person, platform: Platform
    ) -> None:
        cost = await cost_of(server, SHORT)
        before = platform.counts("chat")
        key = ("Idempotency-Key", "a key of the app")
        async with wire.Connection(person.port) as connection:
            connection.ask_json("/textModel/stream", person.call(SHORT), [key])
            await connection.chunk(await connection.head())
        again = await person.stream(SHORT, key)
        assert again.is_complete
        assert len(again.frames()) == 30
        await upstream_is_let_go(platform, before, "completed")
        await server.settles()
        assert await person.tokens() == 1_000_000 - cost, "charged once"


async def read_some_and_leave(person: Person, way: str) -> str:
    """Read four frames of a long story; return their text."""
    async with wire.Connection(person.port) as connection:
        connection.ask_json("/textModel/stream", person.call(SLOW))
        answer = await connection.head()
        for _ in range(4):
            await connection.chunk(answer)
        if way == "reset":
            connection.reset()
    return "".join(frame["payload"]["choices"]["text"][0]["content"] for frame in answer.frames())


async def ask_and_leave(person: Person, platform: Platform, asked: str = SHORT) -> None:
    """Ask for a whole answer, and hang up while it is on its way."""
    seen = platform.counts("chat")["seen"]
    async with wire.Connection(person.port) as connection:
        connection.ask_json("/textModel/chat", person.call(asked))
        await connection.flush()
        await eventually(lambda: platform.counts("chat")["seen"] == seen + 1, "the call reached the platform")
        await asyncio.sleep(0.3)


async def fifty_leave(person: Person, asked: str) -> None:
    async def leave(number: int) -> None:
        async with wire.Connection(person.port) as connection:
            connection.ask_json("/textModel/stream", person.call(asked))
            answer = await connection.head()
            for _ in range(number % 4):
                await connection.chunk(answer)
            if number % 2:
                connection.reset()

    await asyncio.gather(*(leave(number) for number in range(50)))


class TestGoneBeforeTheFirstFrame:
    @pytest.mark.parametrize("path", ["/textModel/stream", "/textModel/chat"])
    async def test_the_question_is_charged_and_upstream_is_let_go(
        self, server: LocalServer, person: Person, platform: Platform, path: str
    ) -> None:
        asked = "[[fault:stall at=first]]"
        before = platform.counts("chat")
        async with wire.Connection(person.port) as connection:
            connection.ask_json(path, person.call(asked))
            await connection.flush()
            await eventually(
                lambda: platform.counts("chat")["seen"] == before["seen"] + 1, "the call reached the platform"
            )
            await asyncio.sleep(0.05)
        await upstream_is_let_go(platform, before, "closed_early")
        await server.settles()
        assert await person.tokens() == 1_000_000 - estimated(question(asked), "")

    async def test_while_a_new_try_is_waited_for(self, server: LocalServer, person: Person, platform: Platform) -> None:
        platform.order("chat", "error", code=11202, times=0)
        async with wire.Connection(person.port) as connection:
            connection.ask_json("/textModel/stream", person.call("hi"))
            await connection.flush()
            await asyncio.sleep(0.3)
        await server.settles()
        assert platform.counts("chat")["open"] == 0
        assert await person.tokens() == 1_000_000 - estimated(question("hi"), "")

    async def test_while_connecting(self, server: LocalServer, person: Person, platform: Platform) -> None:
        platform.order("chat", "hang", seconds=2)
        async with wire.Connection(person.port) as connection:
            connection.ask_json("/textModel/stream", person.call("hi"))
            await connection.flush()
            await asyncio.sleep(0.2)
        await server.settles()
        assert await person.tokens() == 1_000_000
        assert (await person.chat("still there?")).json()["code"] == 0

    async def test_in_the_middle_of_its_own_request(self, server: LocalServer, person: Person) -> None:
        for path in ("/textModel/stream", "/auth/login", "/voiceModel/chat", "/PictureToTextModel/chat"):
            async with wire.Connection(person.port) as connection:
                connection.ask("POST", path, [*person.headers, ("Content-Length", "1000")], b'{"uuid":')
                await connection.flush()
                await asyncio.sleep(0.02)
        await server.settles()


class TestUploads:
    async def test_gone_while_upstream_works(self, server: LocalServer, person: Person, platform: Platform) -> None:
        platform.order("ocr", "slow", seconds=0.3)
        for path, body in (("/PictureToTextModel/chat", jpeg()), ("/voiceModel/chat", pcm(0.5))):
            async with wire.Connection(person.port) as connection:
                connection.ask("POST", path, person.headers, body)
                await connection.flush()
                await asyncio.sleep(0.05)
        await server.settles()
        assert platform.counts("ocr")["open"] == platform.counts("dictation")["open"] == 0
        # The picture was read, so it may be charged, once; what must not be is a charge without a reading.
        assert await person.pictures() in (999, 1000)


class TestClientsThatDoNotRead:
    FLOOD = "[[fault:frames n=100000]]"

    @pytest.mark.timeout(60)
    @pytest.mark.parametrize(("drain", "way"), [(30, "completed"), (0, "closed_early")])
    async def test_memory_is_bounded_and_upstream_waits(
        self, start_server: Callable[..., LocalServer], platform: Platform, drain: float, way: str
    ) -> None:
        server = start_server(client_gone_drain=drain)
        person = await server.person()
        before = platform.counts("chat")
        async with wire.Connection(person.port, receive_buffer=4096) as connection:
            connection.ask_json("/textModel/stream", person.call(self.FLOOD))
            await connection.head()
            await asyncio.sleep(0.7)
            # 100,000 frames are some 20 MB: kernel buffers take a part, the server little, the rest waits at upstream.
            assert platform.counts("chat")["open"] == 1
        await upstream_is_let_go(platform, before, way, seconds=20)
        await server.settles()
        # However much of it was read on, more than was held is not charged.
        held = estimated(question(self.FLOOD), "") + 4096
        assert 1_000_000 - held <= await person.tokens() < 1_000_000

    async def test_one_that_reads_late_gets_everything(self, person: Person) -> None:
        async with wire.Connection(person.port, receive_buffer=4096) as connection:
            connection.ask_json("/textModel/stream", person.call("[[fault:frames n=5000]]"))
            answer = await connection.head()
            await asyncio.sleep(0.5)
            while await connection.chunk(answer) is not None:
                pass
        assert len(answer.chunks) == 5000
        assert json.loads(answer.chunks[-1].data)["header"]["status"] == 2

    @pytest.mark.timeout(60)
    @pytest.mark.parametrize(("drain", "way"), [(30, "completed"), (0, "closed_early")])
    async def test_one_that_never_reads_is_given_up(
        self, start_server: Callable[..., LocalServer], platform: Platform, drain: float, way: str
    ) -> None:
        server = start_server(client_timeout=1.0, client_gone_drain=drain)
        person = await server.person()
        before = platform.counts("chat")
        async with wire.Connection(person.port, receive_buffer=4096) as connection:
            connection.ask_json("/textModel/stream", person.call(self.FLOOD))
            await connection.head()
            await eventually(lambda: platform.counts("chat")["open"] == 0, "a call ends in bounded time", seconds=30)
            await upstream_is_let_go(platform, before, way)
            await server.settles()
        assert await person.tokens() < 1_000_000
