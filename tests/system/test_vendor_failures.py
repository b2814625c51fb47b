"""The platform fails in every way that its documents list: told in the right words, never charged, retried if wise."""

from __future__ import annotations

import asyncio
import itertools
import unicodedata
from collections.abc import Awaitable, Callable

import pytest

from aiproject.codes import Detail
from aiproject.messages.formatting import Language, format_message
from aiproject.protocols.iflytek.error_codes import TABLES, Service, advise
from aiproject.sandbox.faults import GATEWAY_REFUSALS
from aiproject.sandbox.platform import SandboxOptions
from aiproject.sandbox.running import SandboxThread
from system import wire
from system.harness import LocalServer, Person, Platform
from system.samples import jpeg, pcm

Calls = dict[str, Callable[[Person], Awaitable[wire.Answer]]]


def chinese(detail: Detail) -> str:
    return format_message(detail, Language.ZH)


CALL: Calls = {
    "chat": lambda person: person.chat("hi"),
    "dictation": lambda person: person.voice(pcm(0.2)),
    "ocr": lambda person: person.picture(jpeg()),
}
FAILURE = {"chat": "MODEL_ERROR", "dictation": "AUDIO_TO_TEXT_ERROR", "ocr": "PICTURE_TO_TEXT_ERROR"}
SERVICE = {"chat": Service.SPARK, "dictation": Service.DICTATION, "ocr": Service.OCR}
UNLISTED = 11999


def speaks_chinese(text: str) -> bool:
    return any("CJK" in unicodedata.name(character, "") for character in text)


@pytest.mark.parametrize("name", CALL)
async def test_every_code_of_the_documents_is_told_in_chinese_and_charges_nothing(
    name: str, start_server: Callable[..., LocalServer], platform: Platform
) -> None:
    server = start_server(upstream_attempts=1, signup_voice_seconds=100)
    person = await server.person()
    before = await person.login()
    for code in [*sorted(TABLES[SERVICE[name]]), UNLISTED]:
        platform.order(name, "error", code=code, message="vendor says so 内容", http=200)
        answer = await CALL[name](person)
        assert answer.status == 200, code
        found = answer.json()
        assert set(found) == {"code", "msg"}, code
        assert found["code"] == FAILURE[name], code
        advice = advise(SERVICE[name], code)
        assert found["msg"] == ("vendor says so 内容" if advice.shows_hint else chinese(advice.detail)), code
        assert speaks_chinese(found["msg"]), code
    assert await person.login() == before
    assert (await CALL[name](person)).json()["code"] == 0


async def test_every_code_of_the_chat_is_told_by_the_stream_before_and_after_its_first_frame(
    start_server: Callable[..., LocalServer],
) -> None:
    server = start_server(upstream_attempts=1)
    person = await server.person()
    for code in [*sorted(TABLES[Service.SPARK]), UNLISTED]:
        advice = advise(Service.SPARK, code)
        message = f"{chinese(advice.detail)}（ordered by a fault）" if advice.shows_hint else chinese(advice.detail)
        first = await person.stream(f"[[fault:error code={code} at=first]]")
        assert first.json() == {"code": "MODEL_ERROR", "msg": message}
        middle = (await person.stream(f"[[fault:error code={code} at=middle]]")).frames()
        assert middle[-1]["header"]["code"] == code
        assert middle[-1]["header"]["message"] == message
    assert await person.tokens() == 1_000_000


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", CALL)
async def test_codes_worth_a_new_try_get_one(
    name: str, start_server: Callable[..., LocalServer], platform: Platform
) -> None:
    # All at once, since some ask to wait for a second: each order fails one try of one call, so all calls succeed in
    # the end, and the platform sees each call once and each order once.
    server = start_server(upstream_attempts=10)
    person = await server.person()
    codes = [code for code in sorted(TABLES[SERVICE[name]]) if advise(SERVICE[name], code).retry]
    assert codes
    for code in codes:
        platform.order(name, "error", code=code)
    before = platform.counts(name)
    answers = await asyncio.gather(*(CALL[name](person) for _ in codes))
    assert [answer.json()["code"] for answer in answers] == [0] * len(codes)
    after = platform.counts(name)
    assert after["seen"] - before["seen"] == 2 * len(codes)
    assert after["completed"] - before["completed"] == len(codes)
    if name == "ocr":
        assert await person.pictures() == 1000 - len(codes)
    if name == "chat":
        spent = sum(answer.json()["consume_token"] for answer in answers)
        assert await person.tokens() == 1_000_000 - spent


@pytest.mark.parametrize("name", CALL)
async def test_codes_not_worth_a_new_try_get_none(name: str, server: LocalServer, platform: Platform) -> None:
    person = await server.person()
    codes = [code for code in sorted(TABLES[SERVICE[name]]) if not advise(SERVICE[name], code).retry]
    for code in [*codes, UNLISTED]:
        platform.order(name, "error", code=code)
        seen = platform.counts(name)["seen"]
        assert (await CALL[name](person)).json()["code"] == FAILURE[name], code
        assert platform.counts(name)["seen"] == seen + 1, code


async def test_the_per_second_limit_twice_and_then_an_answer(server: LocalServer, platform: Platform) -> None:
    person = await server.person()
    platform.order("chat", "error", code=11202, times=2)
    seen = platform.counts("chat")["seen"]
    answer = (await person.chat("hi")).json()
    assert answer["code"] == 0
    assert platform.counts("chat")["seen"] == seen + 3
    assert await person.tokens() == 1_000_000 - answer["consume_token"]


async def test_tries_are_counted(server: LocalServer, platform: Platform) -> None:
    person = await server.person()
    platform.order("chat", "error", code=10008, times=0)
    seen = platform.counts("chat")["seen"]
    answer = (await person.chat("hi")).json()
    assert answer == {"code": "MODEL_ERROR", "msg": "服务繁忙，请稍后再试"}
    assert platform.counts("chat")["seen"] == seen + 3
    assert await person.tokens() == 1_000_000


async def test_nothing_is_tried_again_once_a_frame_has_left(server: LocalServer, platform: Platform) -> None:
    person = await server.person()
    seen = platform.counts("chat")["seen"]
    frames = (await person.stream("[[fault:error code=10008 at=middle]]")).frames()
    assert frames[-1]["header"]["code"] == 10008
    assert platform.counts("chat")["seen"] == seen + 1


class TestTheWayThere:
    @pytest.mark.parametrize("name", CALL)
    @pytest.mark.parametrize("reason", [reason for reason in GATEWAY_REFUSALS if not reason.startswith("date")])
    async def test_the_gateway_refuses(self, server: LocalServer, platform: Platform, name: str, reason: str) -> None:
        person = await server.person()
        platform.order(name, "refuse", reason=reason)
        found = (await CALL[name](person)).json()
        assert found["code"] == FAILURE[name]
        assert speaks_chinese(found["msg"])
        assert (await CALL[name](person)).json()["code"] == 0
        assert await person.tokens() > 1_000_000 - 1000

    @pytest.mark.parametrize("name", CALL)
    @pytest.mark.parametrize("fault", ["drop", "html", "reset"])
    async def test_one_stumble_is_not_noticed(
        self, server: LocalServer, platform: Platform, name: str, fault: str
    ) -> None:
        person = await server.person()
        options = {"after": 0} if fault == "reset" and name == "chat" else {}
        platform.order(name, fault, **options)
        assert (await CALL[name](person)).json()["code"] == 0

    @pytest.mark.parametrize("name", CALL)
    async def test_a_platform_that_is_away(self, start_server: Callable[..., LocalServer], name: str) -> None:
        thread = SandboxThread(SandboxOptions(use_engines=False))
        gone = thread.start()
        thread.stop()
        server = start_server(spark_url=gone.spark_url, dictation_url=gone.dictation_url, ocr_url=gone.ocr_url)
        person = await server.person()
        found = (await CALL[name](person)).json()
        assert found == {"code": FAILURE[name], "msg": "暂时无法连接模型服务，请稍后再试"}
        assert (await person.login())["picTimes"] == 1000

    @pytest.mark.parametrize("name", CALL)
    async def test_a_platform_that_does_not_answer(
        self, start_server: Callable[..., LocalServer], platform: Platform, name: str
    ) -> None:
        server = start_server(
            upstream_connect_timeout=0.3, upstream_timeout=0.4, upstream_call_timeout=0.8, upstream_attempts=2
        )
        person = await server.person()
        for fault in ("hang", "stall"):
            platform.order(name, fault, times=0)
            async with asyncio.timeout(6):
                found = (await CALL[name](person)).json()
            assert found == {"code": FAILURE[name], "msg": "模型响应超时，请稍后再试"}, fault
            platform.forget()
        assert (await CALL[name](person)).json()["code"] == 0
        assert await person.pictures() == 1000 - (name == "ocr")


class TestNonsense:
    @pytest.mark.parametrize(
        ("name", "fault"),
        [*itertools.product(CALL, ["not_json", "huge"]), ("chat", "truncate"), ("dictation", "truncate")],
    )
    async def test_it_is_survived(self, server: LocalServer, platform: Platform, name: str, fault: str) -> None:
        person = await server.person()
        before = await person.login()
        platform.order(name, fault, times=0)
        found = (await CALL[name](person)).json()
        assert found["code"] == FAILURE[name]
        assert speaks_chinese(found["msg"])
        assert await person.login() == before
        platform.forget()
        assert (await CALL[name](person)).json()["code"] == 0
        await server.settles()

    @pytest.mark.parametrize("name", CALL)
    async def test_a_message_without_payload_says_nothing(
        self, server: LocalServer, platform: Platform, name: str
    ) -> None:
        # One among others for chat and dictation; all there is for a picture without text, by the documents.
        person = await server.person()
        plain = (await CALL[name](person)).json()
        platform.order(name, "no_payload")
        assert (await CALL[name](person)).json() == ({**plain, "content": ""} if name == "ocr" else plain)

    async def test_padding_behind_a_pictures_text_is_no_error(self, server: LocalServer, platform: Platform) -> None:
        person = await server.person()
        plain = (await person.picture(jpeg())).json()["content"]
        platform.order("ocr", "nul", n=500)
        assert (await person.picture(jpeg())).json() == {"code": 0, "msg": "请求成功", "content": plain}

    async def test_a_picture_without_text_is_a_success(self, server: LocalServer, platform: Platform) -> None:
        person = await server.person()
        platform.order("ocr", "empty")
        assert (await person.picture(jpeg())).json() == {"code": 0, "msg": "请求成功", "content": ""}
        assert await person.pictures() == 999

    async def test_errors_of_the_ocr_gateway_in_both_shapes(self, server: LocalServer, platform: Platform) -> None:
        person = await server.person()
        for flat in (0, 1):
            for status in (200, 400, 500, 502):
                platform.order("ocr", "error", code=11200, http=status, flat=flat)
                found = (await person.picture(jpeg())).json()
                assert found == {
                    "code": "PICTURE_TO_TEXT_ERROR",
                    "msg": chinese(advise(Service.OCR, 11200).detail),
                }, (flat, status)

    async def test_dictation_with_corrections_and_an_early_end(
        self, start_server: Callable[..., LocalServer], platform: Platform
    ) -> None:
        server = start_server(dictation_correction=True)
        person = await server.person()
        plain = (await person.voice(pcm(2.0))).json()
        assert plain["code"] == 0
        for fault in ("wpgs", "no_pgs"):
            platform.order("dictation", fault)
            assert (await person.voice(pcm(2.0))).json() == plain, fault
        platform.order("dictation", "vad", seconds=0.5)
        assert (await person.voice(pcm(2.0))).json()["code"] == 0


class TestClocks:
    @pytest.mark.parametrize("seconds", [4000, -4000])
    async def test_a_clock_that_is_off_is_learnt_from_the_refusal(
        self, start_server: Callable[..., LocalServer], platform: Platform, seconds: int
    ) -> None:
        server = start_server()
        person = await server.person()
        platform.order("any", "clock", seconds=seconds, times=0)
        refused = platform.counts("chat")["refused"]
        answers = await asyncio.gather(*(person.chat("hi") for _ in range(5)))
        assert [answer.json()["code"] for answer in answers] == [0] * 5
        assert platform.counts("chat")["refused"] > refused
        learnt = {name: platform.counts(name)["refused"] for name in CALL}
        for name in CALL:
            assert (await CALL[name](person)).json()["code"] == 0, name
        assert {name: platform.counts(name)["refused"] for name in CALL} == learnt, "learnt once, for all services"
        # The clock is set right again: that is learnt too.
        platform.forget()
        for name in CALL:
            assert (await CALL[name](person)).json()["code"] == 0, name

    async def test_the_picture_service_can_be_the_first_to_tell(
        self, start_server: Callable[..., LocalServer], platform: Platform
    ) -> None:
        server = start_server()
        person = await server.person()
        platform.order("any", "clock", seconds=900, times=0)
        assert (await person.picture(jpeg())).json()["code"] == 0
        assert (await person.voice(pcm(0.2))).json()["code"] == 0

    @pytest.mark.parametrize("reason", ["date", "date_mismatch"])
    async def test_a_refusal_that_blames_the_clock_without_reason_does_not_loop(
        self, server: LocalServer, platform: Platform, reason: str
    ) -> None:
        person = await server.person()
        platform.order("chat", "refuse", reason=reason, times=0)
        refused = platform.counts("chat")["refused"]
        assert (await person.chat("hi")).json()["code"] == "MODEL_ERROR"
        assert platform.counts("chat")["refused"] - refused <= 3


async def test_the_other_services_of_the_vendor_by_their_addresses(
    start_server: Callable[..., LocalServer], platform: Platform
) -> None:
    address = platform.address
    root = f"http://127.0.0.1:{address.port}/v1/private"
    for name in ("sf8e6aca1", "se75ocrbm", "hh_ocr_recognize_doc"):
        server = start_server(
            ocr_url=f"{root}/{name}", dictation_url=address.large_model_dictation_url, dictation_language="zh_cn"
        )
        person = await server.person()
        assert (await person.picture(jpeg())).json()["code"] == 0, name
        assert platform.last("ocr")["service"] == name
        assert (await person.voice(pcm(1.0))).json()["code"] == 0
        assert platform.last("dictation")["audio_seconds"] == pytest.approx(1.0)
