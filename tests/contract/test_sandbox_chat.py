"""The sandbox's chat and image understanding over real sockets (simulator rules of Spark's websocket)."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import websockets
from PIL import Image

from aiproject.protocols.iflytek.spark.models import known_domains
from aiproject.sandbox.platform import SPARK_PATHS
from aiproject.sandbox.running import SandboxAddress, SandboxThread
from sandbox_client import FAST, chat_request, connect, control, read_all, say


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxThread]:
    thread = SandboxThread(replace(FAST, request_timeout=0.4, linger=0.5))
    thread.start()
    yield thread
    thread.stop()


@pytest.fixture
def address(sandbox: SandboxThread) -> SandboxAddress:
    sandbox.faults.clear()
    assert sandbox._address is not None
    return sandbox._address


def text_of(frames: list[dict[str, Any]]) -> str:
    return "".join(
        element.get("content") or ""
        for frame in frames
        for element in frame.get("payload", {}).get("choices", {}).get("text", [])
    )


def codes(frames: list[dict[str, Any]]) -> list[int]:
    return [frame["header"]["code"] for frame in frames]


class TestAnswer:
    async def test_shape(self, address: SandboxAddress) -> None:
        frames, ws = await say(address, chat_request(address, "讲个笑话"))
        assert len(frames) >= 3
        assert [frame["header"]["status"] for frame in frames] == [0, *[1] * (len(frames) - 2), 2]
        assert [frame["payload"]["choices"]["status"] for frame in frames] == [0, *[1] * (len(frames) - 2), 2]
        assert [frame["payload"]["choices"]["seq"] for frame in frames] == list(range(len(frames)))
        (sid,) = {frame["header"]["sid"] for frame in frames}
        assert re.fullmatch(r"cht000[0-9a-f]{5}@dx[0-9a-f]{18}", sid)
        assert [("usage" in frame["payload"]) for frame in frames] == [False] * (len(frames) - 1) + [True]
        usage = frames[-1]["payload"]["usage"]["text"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        assert 0 < usage["prompt_tokens"] < usage["completion_tokens"] < 400
        assert (ws.close_code, ws.close_reason) == (1000, "")

    @pytest.mark.parametrize(("prompt", "label"), [("讲个笑话", "【沙盒】"), ("Tell me a joke", "[sandbox]")])
    async def test_labelled_in_the_language_of_the_question_and_the_same_each_time(
        self, address: SandboxAddress, prompt: str, label: str
    ) -> None:
        first, _ = await say(address, chat_request(address, prompt))
        second, _ = await say(address, chat_request(address, prompt))
        assert text_of(first).startswith(label)
        assert prompt in text_of(first)
        assert text_of(first) == text_of(second)

    async def test_history_counts(self, address: SandboxAddress) -> None:
        request = chat_request(address, "第一问")
        short, _ = await say(address, request)
        request["payload"]["message"]["text"] = [
            {"role": "system", "content": "请简短"},
            {"role": "user", "content": "第一问"},
            {"role": "assistant", "content": "第一答" * 50},
            {"role": "user", "content": "第二问"},
        ]
        long, _ = await say(address, request)
        prompt = [frames[-1]["payload"]["usage"]["text"]["prompt_tokens"] for frames in (short, long)]
        assert prompt[1] > prompt[0] + 90
        assert "第 2 个问题" in text_of(long)

    async def test_max_tokens(self, address: SandboxAddress) -> None:
        frames, _ = await say(address, chat_request(address, "讲个笑话", max_tokens=10))
        assert frames[-1]["payload"]["usage"]["text"]["completion_tokens"] <= 10
        assert 5 <= len(text_of(frames)) <= 15

    @pytest.mark.parametrize("path", SPARK_PATHS)
    async def test_every_path_with_its_domain(self, address: SandboxAddress, path: str) -> None:
        url = f"ws://127.0.0.1:{address.port}{path}"
        domains = known_domains(url)
        assert domains
        for domain in domains:
            frames, _ = await say(address, chat_request(address, domain=domain), url=url)
            assert frames[-1]["header"]["status"] == 2
            has_reasoning = any("reasoning_content" in f["payload"]["choices"]["text"][0] for f in frames)
            assert has_reasoning == (path in ("/v1/x1", "/x2"))
        frames, _ = await say(address, chat_request(address, domain="no-such"), url=url)
        assert codes(frames) == [10003]
        assert "invalid model domain" in frames[0]["header"]["message"]

    async def test_reasoning_comes_before_content(self, address: SandboxAddress) -> None:
        url = f"ws://127.0.0.1:{address.port}/x2"
        frames, _ = await say(address, chat_request(address, domain="spark-x"), url=url)
        kinds = [bool(frame["payload"]["choices"]["text"][0].get("reasoning_content")) for frame in frames]
        assert kinds == sorted(kinds, reverse=True)
        quiet, _ = await say(address, chat_request(address, domain="spark-x", thinking={"type": "disabled"}), url=url)
        assert not any("reasoning_content" in frame["payload"]["choices"]["text"][0] for frame in quiet)

    async def test_search_sources_where_asked(self, address: SandboxAddress) -> None:
        tools = [{"type": "web_search", "web_search": {"enable": True, "show_ref_label": True}}]
        frames, _ = await say(address, chat_request(address, tools=tools))
        assert "choices" not in frames[0]["payload"]
        assert json.loads(frames[0]["payload"]["plugins"]["text"][0]["content"])

    async def test_frames_are_spaced(self) -> None:
        with SandboxThread(replace(FAST, first_frame_delay=0.05, frame_gap=0.02)) as address:
            async with connect(address, address.spark_url) as ws:
                asked = time.monotonic()
                await ws.send(json.dumps(chat_request(address, max_tokens=40)))
                times = [time.monotonic() async for _ in ws]
        assert times[0] - asked >= 0.045
        assert times[-1] - times[0] >= 0.019 * (len(times) - 1)

    async def test_round_trip(self) -> None:
        with SandboxThread(replace(FAST, round_trip=0.1)) as address:
            started = time.monotonic()
            async with connect(address, address.spark_url) as ws:
                assert time.monotonic() - started >= 0.2
                asked = time.monotonic()
                await ws.send(json.dumps(chat_request(address)))
                await ws.recv()
                assert time.monotonic() - asked >= 0.1

    async def test_many_at_once(self) -> None:
        # With the usual patience: on a busy machine, some take their time to ask.
        sandbox = SandboxThread(FAST)
        with sandbox as address:
            answers = await asyncio.gather(*(say(address, chat_request(address, f"问题 {i}")) for i in range(60)))
            for number, (frames, _) in enumerate(answers):
                assert f"问题 {number}”" in text_of(frames)
            assert sandbox.calls()["services"]["chat"]["open"] == 0


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"header": {}}, 10313),
            ({"header": {"app_id": "foreign"}}, 10313),
            ({"parameter": {"chat": {"domain": "lite"}}}, 10003),
            ({"parameter": {"chat": {"domain": "generalv3.5", "temperature": 3}}}, 10005),
            ({"parameter": {"chat": {"domain": "generalv3.5", "max_tokens": 9000}}}, 10005),
            ({"parameter": {"chat": {"domain": "generalv3.5", "top_k": "4"}}}, 10163),
            ({"payload": {}}, 10163),
            ({"payload": {"message": {"text": [{"role": "assistant", "content": "a"}]}}}, 10004),
            ({"payload": {"message": {"text": [{"role": "user", "content": "字" * 20000}]}}}, 10907),
        ],
    )
    async def test_error_frame_then_close(self, address: SandboxAddress, change: dict[str, Any], code: int) -> None:
        frames, ws = await say(address, chat_request(address) | change)
        (frame,) = frames
        assert (frame["header"]["code"], frame["header"]["status"]) == (code, 2)
        assert "payload" not in frame
        assert ws.close_code == 1000
        assert ws.close_reason == frame["header"]["message"][:123]

    async def test_not_json(self, address: SandboxAddress) -> None:
        assert codes((await say(address, "{"))[0]) == [10003]

    async def test_binary_question(self, address: SandboxAddress) -> None:
        async with connect(address, address.spark_url) as ws:
            await ws.send(json.dumps(chat_request(address)).encode())
            assert codes(await read_all(ws)) == [10003]

    async def test_no_question(self, address: SandboxAddress) -> None:
        async with connect(address, address.spark_url) as ws:
            started = time.monotonic()
            with pytest.raises(websockets.ConnectionClosedOK):
                await ws.recv()
            assert 0.35 < time.monotonic() - started < 2

    async def test_second_question(self, address: SandboxAddress) -> None:
        async with connect(address, address.spark_url) as ws:
            await ws.send(json.dumps(chat_request(address, "[[fault:slow seconds=0.2]]一")))
            await ws.recv()
            await ws.send(json.dumps(chat_request(address, "二")))
            assert codes(await read_all(ws))[-1] == 10007


class TestClosing:
    async def test_client_closes_first_where_switched(self) -> None:
        with SandboxThread(replace(FAST, server_closes=False, linger=0.3)) as address:
            async with connect(address, address.spark_url) as ws:
                await ws.send(json.dumps(chat_request(address)))
                while json.loads(await ws.recv())["header"]["status"] != 2:
                    pass
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(ws.recv(), 0.1)
                await ws.close()
                assert (ws.close_code, ws.protocol.close_rcvd_then_sent) == (1000, False)

    async def test_early_close_stops_the_answer(self, sandbox: SandboxThread, address: SandboxAddress) -> None:
        before = sandbox.calls()["services"]["chat"]["closed_early"]
        async with connect(address, address.spark_url) as ws:
            await ws.send(json.dumps(chat_request(address, "[[fault:slow seconds=5]]停")))
            await ws.recv()
        for _ in range(50):
            counts = sandbox.calls()["services"]["chat"]
            if counts["open"] == 0:
                break
            await asyncio.sleep(0.02)
        assert (counts["open"], counts["closed_early"]) == (0, before + 1)


class TestFaults:
    """Ordered in the prompt; the control API reaches the same code."""

    async def ask(self, address: SandboxAddress, order: str) -> list[dict[str, Any]]:
        return (await say(address, chat_request(address, f"[[fault:{order}]]请说话")))[0]

    async def test_order_is_not_echoed(self, address: SandboxAddress) -> None:
        assert "fault" not in text_of(await self.ask(address, "empty"))

    @pytest.mark.parametrize("code", [10013, 10012, 11200, 99999])
    async def test_error_in_the_first_frame(self, address: SandboxAddress, code: int) -> None:
        frames = await self.ask(address, f'code={code} at=first message="please wait"')
        assert codes(frames) == [code]
        assert frames[0]["header"]["message"] == "please wait"

    async def test_error_in_mid_answer(self, address: SandboxAddress) -> None:
        assert codes(await self.ask(address, "error code=10014 at=middle after=3")) == [0, 0, 0, 10014]

    async def test_some_errors_then_success(self, address: SandboxAddress) -> None:
        control(address, "POST", "/faults", [{"service": "chat", "fault": "error", "code": 11202, "times": 2}])
        seen = [codes((await say(address, chat_request(address)))[0])[0] for _ in range(4)]
        assert seen == [11202, 11202, 0, 0]

    async def test_the_same_in_the_prompt(self, address: SandboxAddress) -> None:
        seen = [codes(await self.ask(address, "code=11202 times=2"))[0] for _ in range(6)]
        assert seen == [11202, 11202, 0] * 2

    async def test_single_frame(self, address: SandboxAddress) -> None:
        (frame,) = await self.ask(address, "single")
        assert (frame["header"]["status"], frame["payload"]["choices"]["status"]) == (2, 2)
        assert frame["payload"]["usage"]

    async def test_empty_and_null_content(self, address: SandboxAddress) -> None:
        contents = [f["payload"]["choices"]["text"][0]["content"] for f in await self.ask(address, "empty")]
        assert contents.count("") > 3
        contents = [f["payload"]["choices"]["text"][0]["content"] for f in await self.ask(address, "null")]
        assert contents.count(None) == 1

    async def test_plugins_reasoning_function_call(self, address: SandboxAddress) -> None:
        assert set((await self.ask(address, "plugins"))[0]["payload"]) == {"plugins"}
        assert (await self.ask(address, "reasoning"))[0]["payload"]["choices"]["text"][0]["reasoning_content"]
        (frame,) = await self.ask(address, "function_call name=f")
        element = frame["payload"]["choices"]["text"][0]
        assert (element["content"], element["function_call"]["name"]) == ("", "f")
        assert json.loads(element["function_call"]["arguments"])
        assert frame["payload"]["usage"]["text"]["completion_tokens"] == 0

    async def test_close_without_last_frame(self, address: SandboxAddress) -> None:
        frames, ws = await say(address, chat_request(address, "[[fault:truncate after=2 code=1011]]"))
        assert [frame["header"]["status"] for frame in frames] == [0, 1]
        assert ws.close_code == 1011

    async def test_reset(self, address: SandboxAddress) -> None:
        frames, ws = await say(address, chat_request(address, "[[fault:reset after=2]]"))
        assert len(frames) <= 2  # a reset may overtake what was sent
        assert ws.close_code == 1006

    @pytest.mark.parametrize(("order", "before"), [("stall at=first", 0), ("stall at=middle after=2", 2)])
    async def test_stall(self, address: SandboxAddress, order: str, before: int) -> None:
        async with connect(address, address.spark_url) as ws:
            await ws.send(json.dumps(chat_request(address, f"[[fault:{order}]]")))
            for _ in range(before):
                await ws.recv()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ws.recv(), 0.15)

    async def test_many_frames(self, address: SandboxAddress) -> None:
        frames = await self.ask(address, "frames n=150")
        assert len(frames) == 150
        assert [frame["payload"]["choices"]["seq"] for frame in frames] == list(range(150))

    async def test_emoji(self, address: SandboxAddress) -> None:
        frames = await self.ask(address, "emoji")
        assert "🎉" in text_of(frames)
        assert all(len(frame["payload"]["choices"]["text"][0]["content"]) == 1 for frame in frames)

    async def test_wide_frame_is_utf8(self, address: SandboxAddress) -> None:
        async with connect(address, address.spark_url) as ws:
            await ws.send(json.dumps(chat_request(address, "[[fault:wide bytes=6000]]宽")))
            longest = max([frame async for frame in ws], key=len)
        assert isinstance(longest, str)
        assert "宽" * 2000 in longest

    async def test_huge_frame(self, address: SandboxAddress) -> None:
        async with connect(address, address.spark_url) as ws:
            await ws.send(json.dumps(chat_request(address, "[[fault:huge bytes=10000000]]")))
            assert max([len(frame) async for frame in ws]) > 10_000_000

    async def test_frames_that_are_none(self, address: SandboxAddress) -> None:
        for order, is_nonsense in [("not_json after=1", True), ("binary after=1", True), ("no_payload after=1", False)]:
            async with connect(address, address.spark_url) as ws:
                await ws.send(json.dumps(chat_request(address, f"[[fault:{order}]]")))
                frames = [frame async for frame in ws]
            if is_nonsense:
                with pytest.raises(ValueError):  # noqa: PT011 - not JSON, or not even UTF-8
                    json.loads(frames[1])
            else:
                assert set(json.loads(frames[1])) == {"header"}
            assert json.loads(frames[-1])["header"]["status"] == 2

    @pytest.mark.parametrize(
        ("how", "total"), [("negative", -7), ("absurd", 10**18), ("total", 1), ("missing", None), ("text", "1")]
    )
    async def test_usage(self, address: SandboxAddress, how: str, total: object) -> None:
        payload = (await self.ask(address, f"usage value={how}"))[-1]["payload"]
        if total is None:
            assert "usage" not in payload
        else:
            assert type(payload["usage"]["text"]["total_tokens"]) is type(total)
            assert how == "text" or payload["usage"]["text"]["total_tokens"] == total

    async def test_no_close(self, address: SandboxAddress) -> None:
        async with connect(address, address.spark_url) as ws:
            started = time.monotonic()
            await ws.send(json.dumps(chat_request(address, "[[fault:no_close]]")))
            frames = await read_all(ws)
        assert frames[-1]["header"]["status"] == 2
        assert time.monotonic() - started > 0.45  # closed in the end, after the linger time

    async def test_two_orders_together(self, address: SandboxAddress) -> None:
        frames, _ = await say(
            address, chat_request(address, "[[fault:frames n=10]][[fault:error code=10014 at=middle]]")
        )
        assert codes(frames) == [0, 0, 10014]


def picture(size: tuple[int, int], kind: str = "JPEG") -> str:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def png_header(width: int, height: int) -> str:
    """As much of a picture as tells its size; encoding 36 million pixels takes seconds."""
    ihdr = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d" + ihdr).decode()


def image_request(address: SandboxAddress, image: str, **chat: Any) -> dict[str, Any]:
    return {
        "header": {"app_id": address.app_id},
        "parameter": {"chat": {"domain": "imagev3", **chat}},
        "payload": {
            "message": {
                "text": [
                    {"role": "user", "content": image, "content_type": "image"},
                    {"role": "user", "content": "这张图片里有什么？", "content_type": "text"},
                ]
            }
        },
    }


class TestImageUnderstanding:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG"])
    async def test_answer(self, address: SandboxAddress, kind: str) -> None:
        request = image_request(address, picture((320, 200), kind))
        frames, _ = await say(address, request, url=address.image_url)
        again, _ = await say(address, request, url=address.image_url)
        assert "320×200" in text_of(frames)
        assert text_of(frames) == text_of(again)
        assert frames[-1]["payload"]["usage"]["text"]["prompt_tokens"] > 200

    async def test_basic_version_counts_273_tokens_a_picture(self, address: SandboxAddress) -> None:
        frames, _ = await say(
            address, image_request(address, picture((320, 200)), domain="general"), url=address.image_url
        )
        usage = frames[-1]["payload"]["usage"]["text"]
        assert usage["prompt_tokens"] - usage["question_tokens"] == 273

    @pytest.mark.parametrize(
        ("image", "code"),
        [
            (picture((49, 50)), 10041),
            (png_header(6001, 6000), 10041),
            (png_header(12801, 100), 10029),
            ("no Base64!", 10003),
            (base64.b64encode(b"GIF89a" + bytes(100)).decode(), 10003),
            (base64.b64encode(b"\xff\xd8\xff" + bytes(4 * 1024 * 1024)).decode(), 10003),
        ],
    )
    async def test_refused_pictures(self, address: SandboxAddress, image: str, code: int) -> None:
        frames, _ = await say(address, image_request(address, image), url=address.image_url)
        assert codes(frames) == [code]

    async def test_order_of_messages(self, address: SandboxAddress) -> None:
        request = image_request(address, picture((100, 100)))
        texts = request["payload"]["message"]["text"]
        for broken in (texts[1:], texts[:1], [*texts, texts[1]], [texts[1], texts[0]]):
            request["payload"]["message"]["text"] = broken
            frames, _ = await say(address, request, url=address.image_url)
            assert codes(frames) == [10004]
