"""What a receipt says in plain words."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from aiproject.ledger.model import HoldState, Meter, Outcome, Stage
from aiproject.ledger.receipts import ENDINGS, Receipt, explain, rule_facts
from aiproject.ledger.rules import RULE_VERSION

FINISHED = Receipt(
    request_id="call",
    attempt=1,
    capability=Meter.TOKENS,
    held=100,
    state=HoldState.CAPTURED,
    stage=Stage.LAST_FRAME,
    outcome=Outcome.FINISHED,
    reported=14,
    charged=14,
    lost=0,
    unpaid=0,
    refunded=0,
    sid=None,
    rule=f'{{"rule":{RULE_VERSION}}}',
    opened_at=1,
    closed_at=2,
)
FAILED: dict[str, Any] = {"outcome": Outcome.TRUNCATED, "stage": Stage.FIRST_FRAME, "reported": None}
GONE: dict[str, Any] = {"outcome": Outcome.CLIENT_GONE, "stage": Stage.FIRST_FRAME, "reported": None}


@pytest.mark.parametrize(
    ("changes", "zh", "en"),
    [
        ({}, "调用已完成。按平台报告的用量扣除 14 个 token。", "Charged 14 tokens, as the platform reported."),
        ({"reported": None}, "平台未报告用量，按我们的估算扣除 14 个 token。", "Charged 14 tokens, by our estimate"),
        (
            {"charged": 100, "reported": 130, "lost": 30},
            "扣除 100 个 token。实际用量还多出 30 个 token，由运营方承担。",
            "It consumed 30 tokens more, which the operator bears.",
        ),
        ({"refunded": 14}, "扣除 14 个 token。之后已退还 14 个 token。", "reported. Later 14 tokens given back."),
        (
            GONE,
            "按提问和断开前已生成的内容估算，扣除 14 个 token。",
            "hung up before the answer ended. Charged 14 tokens, our",
        ),
        (
            {**GONE, "rule": '{"rule":1}'},
            "断开了连接。扣除 14 个 token。",
            "hung up before the answer ended. Charged 14 tokens.",
        ),
        (
            {**FAILED, "charged": 0, "lost": 30, "unpaid": 20, "state": HoldState.RELEASED},
            "没有扣费，预留额度已全部退回（100 个 token）。其中 20 个 token计入当日免付用量。",
            "free again. 20 tokens count against the day's bound of unpaid usage.",
        ),
        (
            {**FAILED, "charged": 14, "lost": 30, "unpaid": 20},
            "当日免付用量已用完，超出部分按提问和已收到的内容估算，扣除 14 个 token。实际用量还多出 30 个 token，",
            "our estimate of the prompt and of what was passed on, beyond the day's bound of unpaid usage. It consumed",
        ),
        (
            {"outcome": Outcome.MODERATED, "charged": 0, "state": HoldState.RELEASED},
            "没有扣费，预留额度已全部退回（100 个 token）。",
            "Nothing was charged",
        ),
        (
            {"outcome": None, "charged": None, "state": HoldState.OPEN},
            "调用仍在进行，已预留 100 个 token。",
            "still running; 100 tokens set aside",
        ),
        (
            {"capability": Meter.PIC_TIMES, "held": 1, "charged": 1, "reported": 1},
            "按张扣除 1 次图片识别。",
            "Charged 1 picture, by the picture.",
        ),
        (
            {"capability": Meter.VOICE_SECONDS, "held": 61250, "charged": 61250, "reported": 61250},
            "按音频时长扣除 61.25 秒语音。",
            "Charged 61.25 s of speech, the length of the recording.",
        ),
        ({"rule": '{"rule":99}'}, "调用已完成。扣除 14 个 token。", "The call was finished. Charged 14 tokens."),
        ({"rule": "spoilt"}, "调用已完成。扣除 14 个 token。", "The call was finished. Charged 14 tokens."),
    ],
)
def test_say_what_happened_and_why_it_costs_that(changes: dict[str, Any], zh: str, en: str) -> None:
    words = explain(dataclasses.replace(FINISHED, **changes))
    assert zh in words.zh
    assert en in words.en


def test_every_way_to_end_has_its_words() -> None:
    assert set(ENDINGS) == set(Outcome)
    for outcome in Outcome:
        for stage in Stage:
            for charged in (0, 7):
                words = explain(dataclasses.replace(FINISHED, outcome=outcome, stage=stage, charged=charged))
                assert words.zh.startswith(ENDINGS[outcome].zh)
                assert words.en.startswith(ENDINGS[outcome].en)


@pytest.mark.parametrize(("rule", "facts"), [('{"rule":1}', {"rule": 1}), ("{}", {}), ("[]", {}), ("", {})])
def test_a_rule_s_facts(rule: str, facts: dict[str, Any]) -> None:
    assert rule_facts(rule) == facts
