"""API keys over HTTP: what they open, what they do not, and what is never told or kept."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import program
from aiproject.accounts.api_keys.model import ApiKey, KeyTerms, SpendCap, SpendLimit, draw_key, networks_of
from aiproject.accounts.api_keys.service import ApiKeys
from aiproject.meters import Meter
from system import wire
from system.harness import (
    LocalServer,
    Person,
    Platform,
    ServerProcess,
    open_account,
    post_json,
    question,
    with_other_secret,
)
from system.samples import jpeg, pcm

TOKENS, PIC_TIMES, VOICE = Meter.TOKENS, Meter.PIC_TIMES, Meter.VOICE_SECONDS
NOT_SIGNED_IN = {"code": "NOT_SIGNED_IN", "msg": "请先登录，或提供有效的密钥"}


@dataclass
class Holder:
    """Somebody who has a key, and nothing else."""

    port: int
    text: str

    @property
    def header(self) -> wire.Header:
        return ("Authorization", f"Bearer {self.text}")

    async def chat(self, dialog: str = "你好", way: str = "chat", **more: object) -> wire.Answer:
        return await post_json(self.port, f"/textModel/{way}", {"dialog": question(dialog), **more}, self.header)

    async def upload(self, path: str, data: bytes, *headers: wire.Header) -> wire.Answer:
        kind = ("Content-Type", "application/octet-stream")
        return await wire.request(self.port, "POST", path, [kind, self.header, *headers], data)

    async def voice(self, data: bytes, *headers: wire.Header) -> wire.Answer:
        return await self.upload("/voiceModel/chat", data, *headers)

    async def picture(self, data: bytes, *headers: wire.Header) -> wire.Answer:
        return await self.upload("/PictureToTextModel/chat", data, *headers)

    async def usage(self, path: str = "") -> wire.Answer:
        return await wire.request(self.port, "GET", f"/v1/usage{path}", [self.header])

    async def all(self) -> list[wire.Answer]:
        """Every endpoint that takes a key, each tried once."""
        return [
            await self.chat(),
            await self.chat(way="stream"),
            await self.voice(pcm(0.25)),
            await self.picture(jpeg()),
            await self.usage(),
            await self.usage("/0123456789abcdef01234567"),
        ]


async def key_of(
    server: LocalServer, person: Person, caps: dict[Meter, SpendCap] | None = None, **terms: Any
) -> tuple[Holder, ApiKey]:
    async with server.accounts() as (accounts, _), server.database() as database:
        account = await accounts.named(person.username)
        new = await ApiKeys(database).create(account.account_id, replace(KeyTerms("a key"), **terms), caps)
        return Holder(server.port, new.text), new.key


async def limits(server: LocalServer, key: ApiKey) -> dict[Meter, SpendLimit]:
    async with server.database() as database:
        return dict((await ApiKeys(database).get(key.account_id, key.prefix)).limits)


def summary(answer: wire.Answer) -> tuple[int, Any, str | None]:
    return answer.status, answer.json(), answer.header("www-authenticate")


class TestAGoodKey:
    async def test_opens_every_charging_endpoint_and_is_counted(self, server: LocalServer) -> None:
        person = await server.person()
        holder, key = await key_of(server, person)
        chat = (await holder.chat()).json()
        assert (chat["code"], bool(chat["content"])) == (0, True)
        frames = (await holder.chat(way="stream")).frames()
        streamed = frames[-1]["payload"]["usage"]["text"]["total_tokens"]
        assert (await holder.voice(pcm(0.25))).json()["code"] == 0
        assert (await holder.picture(jpeg())).json()["code"] == 0
        assert await person.tokens() == 1_000_000 - chat["consume_token"] - streamed
        assert await person.pictures() == 999
        spent = {capability: limit.spent for capability, limit in (await limits(server, key)).items()}
        assert spent == {TOKENS: chat["consume_token"] + streamed, PIC_TIMES: 1, VOICE: 250}

    async def test_shows_its_account_s_usage_and_no_other(self, server: LocalServer) -> None:
        person, other = await server.person(), await server.person()
        holder, _ = await key_of(server, person)
        mine, theirs = await holder.chat(), await other.chat("你好")
        entries = (await holder.usage()).json()["entries"]
        assert entries[0]["request_id"] == mine.header("x-request-id")
        receipt = await holder.usage(f"/{mine.header('x-request-id')}")
        assert receipt.json()["attempts"][0]["charged"] == mine.json()["consume_token"]
        foreign = await holder.usage(f"/{theirs.header('x-request-id')}")
        assert (foreign.status, foreign.json()["code"]) == (404, "RECEIPT_NOT_FOUND")

    async def test_needs_no_uuid_and_looks_at_none(self, server: LocalServer) -> None:
        person, other = await server.person(), await server.person()
        holder, _ = await key_of(server, person)
        answer = (await holder.chat(uuid=other.uuid, username=other.username)).json()
        assert answer["code"] == 0
        assert (await holder.chat(uuid=1, username=None)).json()["code"] == 0
        assert (await holder.picture(jpeg(), *other.headers)).json()["code"] == 0
        assert await other.tokens() == 1_000_000
        assert (await other.pictures(), await person.pictures()) == (1000, 999)

    async def test_tells_what_is_wrong_with_a_body(self, server: LocalServer) -> None:
        holder, _ = await key_of(server, await server.person())
        answer = await post_json(server.port, "/textModel/chat", {}, holder.header)
        assert answer.json()["msg"] == "请求参数错误：缺少 dialog"

    @pytest.mark.parametrize("scheme", ["bearer", "BEARER "])
    async def test_is_recognised_however_the_scheme_is_written(self, server: LocalServer, scheme: str) -> None:
        holder, _ = await key_of(server, await server.person())
        header = ("Authorization", f"{scheme} {holder.text}")
        answer = await post_json(server.port, "/textModel/chat", {"dialog": question("你好")}, header)
        assert answer.json()["code"] == 0

    async def test_other_schemes_are_somebody_else_s(self, server: LocalServer) -> None:
        person = await server.person()
        header = ("Authorization", "Basic eDp5")
        answer = await post_json(server.port, "/textModel/chat", person.call("你好"), header)
        assert answer.json()["code"] == 0

    async def test_with_an_idempotency_key_is_charged_once(self, server: LocalServer) -> None:
        person = await server.person()
        holder, key = await key_of(server, person, {PIC_TIMES: SpendCap(total=1)})
        once = ("Idempotency-Key", "one picture")
        answers = [await holder.picture(jpeg(), once) for _ in range(3)]
        assert len({answer.body for answer in answers}) == 1
        assert (await limits(server, key))[PIC_TIMES].spent == 1


class TestABadKey:
    async def test_is_refused_alike_whatever_is_wrong_with_it(self, server: LocalServer) -> None:
        person, gone = await server.person(), await server.person()
        good, _ = await key_of(server, person)
        revoked, key = await key_of(server, person)
        expired, old = await key_of(server, person, expires_at=datetime.now(UTC) + timedelta(hours=1))
        of_disabled, _ = await key_of(server, gone)
        async with server.accounts() as (accounts, _), server.database() as database:
            await ApiKeys(database).revoke(key.account_id, key.prefix)
            await accounts.set_disabled(gone.username, True)
            later = ApiKeys(database, clock=lambda: datetime.now(UTC) - timedelta(days=1))
            over = datetime.now(UTC) - timedelta(minutes=1)
            await later.change(old.account_id, old.prefix, lambda terms: replace(terms, expires_at=over))
        wrong_secret = with_other_secret(good.text)
        for text in (draw_key(), wrong_secret, revoked.text, expired.text, of_disabled.text, "sk-", "", "x" * 3000):
            for answer in await Holder(server.port, text).all():
                assert summary(answer) == (401, NOT_SIGNED_IN, "Bearer"), text[:13]
        assert all(answer.status != 401 for answer in await good.all())

    async def test_is_not_made_up_for_by_a_uuid(self, server: LocalServer) -> None:
        person = await server.person()
        holder = Holder(server.port, draw_key())
        assert (await holder.chat(uuid=person.uuid, username=person.username)).status == 401
        assert (await holder.picture(jpeg(), *person.headers)).status == 401
        assert (await holder.voice(pcm(0.25), *person.headers)).status == 401
        assert await person.tokens() == 1_000_000

    async def test_two_keys_are_none(self, server: LocalServer) -> None:
        holder, _ = await key_of(server, await server.person())
        headers = [holder.header, holder.header]
        assert (await wire.request(server.port, "GET", "/v1/usage", headers)).status == 401


class TestAKeyThatIsHeldTo:
    async def refused(self, answer: wire.Answer) -> None:
        assert (answer.status, answer.json()["code"]) == (403, "PERMISSION_NOT_ALLOW")

    async def test_capabilities(self, server: LocalServer) -> None:
        holder, _ = await key_of(server, await server.person(), capabilities=frozenset({PIC_TIMES}))
        assert (await holder.picture(jpeg())).json()["code"] == 0
        for answer in (await holder.chat(), await holder.chat(way="stream"), await holder.voice(pcm(0.25))):
            await self.refused(answer)
        assert (await holder.usage()).json()["code"] == 0

    async def test_models(self, server: LocalServer) -> None:
        person = await server.person()
        holder, _ = await key_of(server, person, models=frozenset({"4.0Ultra"}))
        await self.refused(await holder.chat())
        holder, _ = await key_of(server, person, models=frozenset({"generalv3.5"}))
        assert (await holder.chat()).json()["code"] == 0

    async def test_addresses(self, server: LocalServer) -> None:
        person = await server.person()
        holder, _ = await key_of(server, person, addresses=networks_of(["192.0.2.0/24"]))
        for answer in await holder.all():
            await self.refused(answer)
        holder, _ = await key_of(server, person, addresses=networks_of(["127.0.0.0/8"]))
        assert (await holder.chat()).json()["code"] == 0

    async def test_rates(self, start_server: Callable[..., LocalServer]) -> None:
        server = start_server(limits="on")
        person = await server.person()
        holder, _ = await key_of(server, person, requests_per_minute=2)
        other, _ = await key_of(server, person)
        codes = [(await holder.picture(jpeg())).json()["code"] for _ in range(3)]
        assert codes == [0, 0, "TOO_MANY_REQUESTS"]
        assert (await other.picture(jpeg())).json()["code"] == 0
        assert await person.pictures() == 997


class TestSpending:
    async def test_two_hundred_at_once_get_exactly_what_the_total_pays(self, server: LocalServer) -> None:
        holder, key = await key_of(server, await server.person(), {VOICE: SpendCap(total=17 * 250)})
        sound = pcm(0.25)
        answers = await asyncio.gather(*(holder.voice(sound) for _ in range(200)))
        found = Counter((answer.status, answer.json()["code"]) for answer in answers)
        assert found == {(200, 0): 17, (429, "KEY_LIMIT_REACHED"): 183}
        assert all(answer.header("retry-after") is None for answer in answers)
        limit = (await limits(server, key))[VOICE]
        assert (limit.spent, limit.held) == (4250, 0)

    async def test_a_daily_cap_says_when_the_next_day_begins(self, server: LocalServer) -> None:
        person = await server.person()
        holder, _ = await key_of(server, person, {PIC_TIMES: SpendCap(daily=1)})
        assert (await holder.picture(jpeg())).json()["code"] == 0
        refused = await holder.picture(jpeg())
        assert (refused.status, refused.json()["code"]) == (429, "KEY_LIMIT_REACHED")
        assert 1 <= int(refused.header("retry-after") or 0) <= 86_400
        assert await person.pictures() == 999

    async def test_the_answer_is_cut_to_what_the_key_may_spend(self, server: LocalServer, platform: Platform) -> None:
        person = await server.person()
        holder, key = await key_of(server, person, {TOKENS: SpendCap(total=40)})
        answer = (await holder.chat("a short question")).json()
        assert answer["code"] == 0
        assert platform.last("chat")["max_tokens"] < 40
        assert (await limits(server, key))[TOKENS].spent == answer["consume_token"] <= 40

    async def test_a_failed_call_costs_the_key_nothing(self, server: LocalServer, platform: Platform) -> None:
        holder, key = await key_of(server, await server.person(), {PIC_TIMES: SpendCap(total=1, daily=1)})
        platform.order("ocr", "error", code=10009, times=1)
        assert (await holder.picture(jpeg())).json()["code"] == "PICTURE_TO_TEXT_ERROR"
        assert (await holder.picture(jpeg())).json()["code"] == 0
        assert (await limits(server, key))[PIC_TIMES].spent == 1


async def test_the_secret_is_told_once_and_kept_nowhere(
    serve_command: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    process = await serve_command({"AIPROJECT_LOG_LEVEL": "debug"}).until_ready()
    directory = process.log_path.parent
    person = await open_account(process.port, "小明")

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*program.COMMAND, *words],
            env=program.environment(AIPROJECT_DATA_DIR=str(directory / "data"), AIPROJECT_LOG_LEVEL="debug"),
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    made = await asyncio.to_thread(command, "key", "add", person.username, "--name", "ci", "--pic-times", "1")
    assert made.returncode == 0, made.stderr
    text = made.stdout.strip()
    prefix, secret = text[:13], text[13:]
    assert prefix in made.stderr
    holder = Holder(process.port, text)
    answers = [await holder.chat(), await holder.voice(b"no sound"), await holder.chat("x" * 3_000_000)]
    assert answers[0].json()["code"] == 0
    wrong = Holder(process.port, with_other_secret(text))
    answers += [await wrong.chat()]
    listed = await asyncio.to_thread(command, "key", "list", person.username)
    assert prefix in listed.stdout
    revoked = await asyncio.to_thread(command, "key", "revoke", prefix)
    assert revoked.returncode == 0
    answers += [await holder.chat()]
    assert [answers[-2].status, answers[-1].status] == [401, 401]
    requests = [event for event in process.events() if event.get("event") == "request" and event.get("key")]
    assert {event["key"] for event in requests} == {prefix}
    told = [process.log, made.stderr, listed.stdout, listed.stderr, revoked.stdout, revoked.stderr]
    told += [json.dumps([answer.headers, answer.body.decode()]) for answer in answers]
    for place in (*told, *(path.read_bytes().decode("latin-1") for path in (directory / "data").rglob("*.db*"))):
        assert secret not in place
        assert wrong.text[13:] not in place
