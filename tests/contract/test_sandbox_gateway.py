"""The sandbox's gateway: signatures, clock, unknown paths, the control API (simulator rules of request signing)."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import pytest
import websockets

from aiproject.errors import Misconfigured
from aiproject.protocols.iflytek.signing import http_date, sign_url
from aiproject.sandbox.faults import GATEWAY_REFUSALS
from aiproject.sandbox.running import SandboxAddress, SandboxThread
from sandbox_client import FAST, chat_request, connect, control, post, read_all, say, signed


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxThread]:
    thread = SandboxThread(FAST)
    thread.start()
    yield thread
    thread.stop()


@pytest.fixture
def address(sandbox: SandboxThread) -> SandboxAddress:
    sandbox.faults.clear()
    assert sandbox._address is not None
    return sandbox._address


async def refused(url: str) -> tuple[int, str, str]:
    """Status, body and ``Date`` of a handshake that is expected to fail."""
    with pytest.raises(websockets.InvalidStatus) as caught:
        await websockets.connect(url)
    response = caught.value.response
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    return response.status_code, (response.body or b"").decode(), response.headers["Date"]


def changed(url: str, **parameters: str | None) -> str:
    """The URL with query parameters replaced, or dropped where the value is None."""
    parts = urlsplit(url)
    query = {**dict(parse_qsl(parts.query)), **parameters}
    kept = {name: value for name, value in query.items() if value is not None}
    return urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(kept), ""))


UNVERIFIED = "cannot be verified"
MISMATCH = '{"message":"HMAC signature does not match"}'


class TestSignature:
    async def test_valid_url_is_let_in(self, address: SandboxAddress) -> None:
        async with connect(address, address.spark_url) as ws:
            assert ws.response is not None
            assert ws.response.status_code == 101

    async def test_no_authorization(self, address: SandboxAddress) -> None:
        status, body, _ = await refused(changed(signed(address, address.spark_url), authorization=None))
        assert (status, body) == (401, '{"message":"Unauthorized"}')

    @pytest.mark.parametrize("value", ["not-base64!!", base64.b64encode(b'api_key="x", algorithm="y"').decode()])
    async def test_unusable_authorization(self, address: SandboxAddress, value: str) -> None:
        status, body, _ = await refused(changed(signed(address, address.spark_url), authorization=value))
        assert status == 401
        assert UNVERIFIED in body

    async def test_unknown_key(self, address: SandboxAddress) -> None:
        stranger = replace(address, api_key="0" * 32)
        status, body, _ = await refused(signed(stranger, address.spark_url))
        assert status == 401
        assert UNVERIFIED in body

    @pytest.mark.parametrize(("name", "status"), [("date", 403), ("host", 401)])
    async def test_missing_parameter(self, address: SandboxAddress, name: str, status: int) -> None:
        assert (await refused(changed(signed(address, address.spark_url), **{name: None})))[0] == status

    async def test_wrong_secret(self, address: SandboxAddress) -> None:
        assert (await refused(signed(address, address.spark_url, secret="guess")))[:2] == (401, MISMATCH)

    async def test_signed_for_another_method(self, address: SandboxAddress) -> None:
        assert (await refused(signed(address, address.spark_url, method="POST")))[:2] == (401, MISMATCH)

    async def test_query_signed_along(self, address: SandboxAddress) -> None:
        url = signed(address, address.spark_url.replace("/v3.5/chat", "/v3.5/chat%3Fa=b")).replace("%3Fa=b", "", 1)
        assert (await refused(url))[:2] == (401, MISMATCH)

    async def test_date_other_than_signed(self, address: SandboxAddress) -> None:
        other = http_date(datetime.fromtimestamp(time.time() - 60, tz=UTC))
        assert (await refused(changed(signed(address, address.spark_url), date=other)))[:2] == (401, MISMATCH)

    @pytest.mark.parametrize("skew", [-310, 310])
    async def test_clock_out_of_the_window(self, address: SandboxAddress, skew: float) -> None:
        status, body, date = await refused(signed(address, address.spark_url, skew=skew))
        assert status == 403
        assert "a valid date" in body
        assert abs(parsedate_to_datetime(date).timestamp() - time.time()) < 5

    @pytest.mark.parametrize("skew", [-290, 290])
    async def test_clock_inside_the_window(self, address: SandboxAddress, skew: float) -> None:
        async with websockets.connect(signed(address, address.spark_url, skew=skew)):
            pass

    async def test_another_spelling_of_the_host(self, address: SandboxAddress) -> None:
        """Clients that sign the platform's own name and are sent here by a tunnel are served."""
        url = sign_url(
            "ws://ws-Api.xfyun.cn/v2/iat",
            method="GET",
            api_key=address.api_key,
            api_secret=address.api_secret,
            date=http_date(datetime.now(UTC)),
        )
        async with websockets.connect(url.replace("ws-Api.xfyun.cn", f"127.0.0.1:{address.port}", 1)):
            pass

    async def test_unknown_path(self, address: SandboxAddress) -> None:
        url = signed(address, address.spark_url.replace("/v3.5/chat", "/v9/chat"))
        assert (await refused(url))[:2] == (404, '{"message":"not found"}')

    async def test_app_id_is_not_looked_at_before_the_upgrade(self, address: SandboxAddress) -> None:
        frames, _ = await say(address, chat_request(replace(address, app_id="foreign")))
        assert frames[0]["header"]["code"] == 10313


class TestClock:
    async def test_injected_clock_decides_and_is_told(self) -> None:
        now = 1_700_000_000.0
        with SandboxThread(replace(FAST, clock=lambda: now)) as address:
            status, _, date = await refused(signed(address, address.spark_url))
            assert (status, parsedate_to_datetime(date).timestamp()) == (403, now)
            async with websockets.connect(signed(address, address.spark_url, skew=now - time.time())):
                pass

    async def test_ordered_skew(self, address: SandboxAddress) -> None:
        control(address, "POST", "/faults", {"service": "chat", "fault": "clock", "seconds": 1200, "times": 0})
        status, body, date = await refused(signed(address, address.spark_url))
        skew = parsedate_to_datetime(date).timestamp() - time.time()
        assert (status, abs(skew - 1200) < 5) == (403, True)
        assert "date" in body
        async with websockets.connect(signed(address, address.spark_url, skew=skew)):
            pass
        control(address, "DELETE", "/faults")
        async with connect(address, address.spark_url):
            pass


class TestGatewayFaults:
    @pytest.mark.parametrize("reason", GATEWAY_REFUSALS)
    async def test_refusals(self, address: SandboxAddress, reason: str) -> None:
        control(address, "POST", "/faults", {"fault": "refuse", "reason": reason})
        status, body, _ = await refused(signed(address, address.spark_url))
        assert (status, body) == (GATEWAY_REFUSALS[reason][0], f'{{"message":"{GATEWAY_REFUSALS[reason][1]}"}}')
        async with connect(address, address.spark_url):  # it was ordered once
            pass

    async def test_hang(self, address: SandboxAddress) -> None:
        control(address, "POST", "/faults", {"fault": "hang", "seconds": 30})
        with pytest.raises(TimeoutError):
            await websockets.connect(signed(address, address.spark_url), open_timeout=0.2)

    async def test_drop(self, address: SandboxAddress) -> None:
        control(address, "POST", "/faults", {"fault": "drop"})
        with pytest.raises((OSError, websockets.InvalidMessage, EOFError)):
            await websockets.connect(signed(address, address.spark_url))

    def test_html_of_a_proxy(self, address: SandboxAddress) -> None:
        control(address, "POST", "/faults", {"service": "ocr", "fault": "html", "status": 502})
        status, body, headers = post(signed(address, address.ocr_url, method="POST"), b"{}")
        assert (status, headers["Content-Type"]) == (502, "text/html; charset=utf-8")
        assert b"<html>" in body


class TestControl:
    def test_orders_are_checked(self, address: SandboxAddress) -> None:
        for body, complaint in [
            ({"fault": "explode"}, "no fault is named"),
            ({"fault": "error", "code": "many"}, "must be a number"),
            ({"service": "ocr", "fault": "single"}, "not for ocr"),
            ({"service": "fax", "fault": "stall"}, "service must be"),
            ({"fault": "stall", "colour": 1}, "no option"),
            ([1], "an order is"),
        ]:
            status, answer = control(address, "POST", "/faults", body)
            assert status == 400
            assert complaint in answer["message"]
        assert control(address, "GET", "/faults") == (200, {"pending": []})

    def test_media_type_keeps_web_pages_out(self, address: SandboxAddress) -> None:
        status, _, _ = post(f"{address.control_url}/faults", b'{"fault":"drop"}', media_type="text/plain")
        assert status == 415

    async def test_calls_are_counted(self, sandbox: SandboxThread, address: SandboxAddress) -> None:
        before = sandbox.calls()["services"]["chat"]
        async with connect(address, address.spark_url) as ws:
            assert sandbox.calls()["services"]["chat"]["open"] == before["open"] + 1
            await ws.close()
        with pytest.raises(websockets.InvalidStatus):
            await websockets.connect(signed(address, address.spark_url, secret="guess"))
        await say(address, chat_request(address, "问" * 300, max_tokens=77, top_k=3))
        async with connect(address, address.spark_url) as ws:
            await ws.send("not JSON")
            await read_all(ws)
        after = sandbox.calls()
        counts = {name: after["services"]["chat"][name] - before[name] for name in before}
        assert counts | {"most_open": 0} == {
            "open": 0,
            "most_open": 0,
            "seen": 3,
            "refused": 1,
            "completed": 1,
            "errors": 1,
            "closed_early": 1,
        }
        last = after["last"]["chat"]
        assert (last["messages"], last["roles"], last["max_tokens"], last["top_k"]) == (1, ["user"], 77, 3)
        assert [len(text) for text in last["contents"]] == [200]


class TestThread:
    def test_port_that_is_taken(self, address: SandboxAddress) -> None:
        with pytest.raises(Misconfigured, match=f"SANDBOX_PORT_TAKEN port={address.port}"):
            SandboxThread(FAST, port=address.port).start()

    def test_speech_model_that_is_none(self) -> None:
        with pytest.raises(Misconfigured, match="SPEECH_FOLDER_MISSING"):
            SandboxThread(replace(FAST, use_engines=True, speech_model=Path("/nowhere/at/all"))).start()

    async def test_stop_ends_stalled_calls(self) -> None:
        thread = SandboxThread(FAST)
        address = thread.start()
        async with connect(address, address.spark_url) as ws:
            await ws.send('{"header":')  # answered at once, so the second connection is the one that hangs
        control(address, "POST", "/faults", {"fault": "stall", "at": "first"})
        ws = await websockets.connect(signed(address, address.spark_url))
        await ws.send(json.dumps(chat_request(address)))
        started = time.monotonic()
        await asyncio.to_thread(thread.stop)
        assert time.monotonic() - started < 3
        with pytest.raises(websockets.ConnectionClosed):
            await ws.recv()
        await ws.close()

    def test_credentials_differ_and_stay_out_of_repr(self) -> None:
        with SandboxThread(replace(FAST)) as address:
            assert len(address.app_id) <= 8
            assert (len(address.api_key), len(address.api_secret)) == (32, 32)
            assert address.api_secret not in repr(address)
            assert address.api_secret not in repr(FAST)
            assert address.environment()["AIPROJECT_SPARK_URL"] == f"ws://127.0.0.1:{address.port}/v3.5/chat"
