"""From measurements to the figures that the document shows."""

from __future__ import annotations

from typing import Any

import pytest

from bench.relay import report
from bench.relay.aims import Aim, judge
from bench.relay.chinese import Untranslated, in_chinese
from bench.relay.load import Target, request_bytes
from bench.relay.measuring import by_quantile, quantile
from bench.relay.tables import Table, markdown, tables

CHAT = "/textModel/chat"
STREAM = "/textModel/stream"


def cost(cpu_us: float, ratio: float, a_frame: float = 2.0) -> dict[str, object]:
    figures = {
        "cpu_us": cpu_us,
        "ratio": ratio,
        "cpu_us_a_frame": a_frame,
        "calls_a_second": 1234.5,
        "first_ms_p50": 1.0,
        "whole_ms_p50": 2.0,
        "whole_ms_p99": 3.0,
    }
    return {CHAT: figures, STREAM: figures, "memory_mib": 100.0}


RESULTS: dict[str, dict[str, Any]] = {
    "cost": {
        "run": {"measured": "2026-11-22", "revision": "abc", "load": 1.0},
        "bare ASGI relay": cost(400, 1.0, 2.0),
        "AiProject": cost(600, 1.5, 2.7),
        "Flask + gevent relay": cost(4000, 10.0),
    }
}


class TestQuantiles:
    @pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 100)])
    def test_of_a_hundred(self, share: float, value: float) -> None:
        assert quantile(list(range(100, 0, -1)), share) == value

    def test_of_nothing_is_nothing(self) -> None:
        assert quantile([], 0.5) == 0
        assert by_quantile([]) == {}

    def test_a_curve_is_in_milliseconds_and_rises(self) -> None:
        curve = by_quantile([number / 1000 for number in range(1000)])
        assert curve["0.5"] == pytest.approx(500)
        assert list(curve.values()) == sorted(curve.values())


class TestAims:
    def test_the_most_and_the_least(self) -> None:
        assert Aim("cost", 1.6, 1.6).is_met
        assert not Aim("cost", 1.6, 1.61).is_met
        assert Aim("workers", 1.8, 1.8, is_least=True).is_met
        assert not Aim("workers", 1.8, 1.79, is_least=True).is_met

    def test_what_was_not_measured_is_not_judged(self) -> None:
        assert judge({}) == []

    def test_of_costs(self) -> None:
        verdicts = {aim.what: aim.is_met for aim in judge(RESULTS)}
        assert verdicts == {
            "CPU of a chat, of the bare relay's": True,
            "CPU of a chat, of the Flask relay's": True,
            "CPU of one more frame of a chat, of the bare relay's": False,
            "CPU of a stream, of the bare relay's": True,
            "CPU of a stream, of the Flask relay's": True,
            "CPU of one more frame of a stream, of the bare relay's": False,
        }


class TestTables:
    def test_one_for_the_aims_and_one_for_each_scenario(self) -> None:
        found = list(tables(RESULTS))
        assert [table.title for table in found] == ["Aims", "Cost of a call of 50 frames (64 at once)"]
        for table in found:
            assert {len(row) for row in table.rows} == {len(table.columns)}

    def test_markdown(self) -> None:
        table = Table("Costs", ("through", "µs"), [("bare", "400")], "A note.")
        assert markdown(table) == "### Costs\n\n| through | µs |\n|---|---|\n| bare | 400 |\n\nA note.\n"

    def test_every_scenario_has_one_with_a_cell_for_each_column(self) -> None:
        run = RESULTS["cost"]["run"]
        crowd = {
            "dropped_streams": 0,
            "delay_ms": {"0.5": 1.0, "0.99": 15.0},
            "share_within_20_ms": 0.995,
            "spacing_ms_p99": 3.0,
            "share_of_a_core": 0.7,
            "share_of_the_time_without_a_core": 0.1,
            "cpu_us_a_frame": 35.0,
            "kib_a_stream": 47.0,
        }
        chats = {"cpu_us": 600, "calls_a_second": 900, "whole_ms_p50": 10, "whole_ms_p99": 20, "cores_used": 0.5}
        first = {"first_ms_p50": 150, "first_ms_p99": 160, "round_trips": 1.2, "of_the_least": 1.07}
        state = {"memory_mib": 120, "descriptors": 50, "threads": 15, "tasks": 3, "open_holds": 0}
        scale = {"accounts": 1000, "entries": 1000, "database_mib": 1, "cpu_us": 600, "ratio": 1, "whole_ms_p50": 9}
        contenders = ("bare ASGI relay", "AiProject")
        results = {
            "cost": RESULTS["cost"],
            "peers": {"run": run, "AiProject": cost(600, 1), "LiteLLM proxy": cost(9000, 15)},
            "concurrency": {"run": run, **{name: {"10": chats, "1000": chats} for name in contenders}},
            "many-streams": {
                "run": run,
                "streams": 2000,
                "frames_a_second_each": 10.0,
                "seconds": 20,
                "watched": 50,
                **dict.fromkeys(contenders, crowd),
            },
            "slow-streams": {
                "run": run,
                "asked": 10_000,
                "streams": 9_900,
                "alive": 9_900,
                "memory_mib": 615,
                "kib_a_stream": 49,
            },
            "first-frame": {"run": run, "rtt_ms": 40.0, "thinking_ms": 100, "AiProject, warm": first},
            "workers": {"run": run, "share_of_a_core": 0.2, "SQLite": {"1": chats, "2": chats}},
            "growth": {"run": run, "scales": [scale, scale]},
            "soak": {
                "run": run,
                "minutes": 30.0,
                "calls": 9,
                "share_of_a_core": 0.5,
                "slope_mib_an_hour": -0.1,
                "before": state,
                "after": {**state, "tasks": 4},
            },
        }
        aims, *rest = tables(results)
        assert len(rest) == len(results)
        for table in (aims, *rest):
            assert table.rows
            assert {len(row) for row in table.rows} == {len(table.columns)}
        verdicts = {aim.what: aim.is_met for aim in judge(results)}
        assert not verdicts["tasks left over after 30 minutes"]
        assert not verdicts["slow streams open in one process"]
        assert verdicts["dropped of 2,000 streams"]
        assert not verdicts["throughput of two workers, of one's, SQLite"]


class TestDocument:
    def test_new_figures_take_the_place_of_old_ones(self) -> None:
        empty = f"before {report.BEGIN} {report.END} after"
        once = report.with_figures(empty, RESULTS)
        assert "1,234" in once
        assert report.with_figures(once, RESULTS) == once
        assert once.startswith("before ")
        assert once.endswith(" after")

    def test_a_document_without_a_place_for_them_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no place"):
            report.with_figures("text", RESULTS)

    @pytest.mark.parametrize("language", ["en", "zh"])
    def test_the_page_shows_what_is_kept(self, language: str) -> None:
        text = report.DOCUMENTS[language].read_text(encoding="utf-8")
        assert report.with_figures(text, report.load(), language) == text

    def test_every_text_of_the_tables_has_its_chinese(self) -> None:
        for table in tables(RESULTS):
            chinese = in_chinese(table)
            assert chinese.title != table.title
            assert [len(row) for row in chinese.rows] == [len(row) for row in table.rows]

    def test_a_text_without_chinese_is_an_error(self) -> None:
        with pytest.raises(Untranslated, match="a new title"):
            in_chinese(Table("a new title", ("ratio",), [("1.00",)]))


class TestRequests:
    def test_accounts_take_turns(self) -> None:
        target = Target(80, CHAT, "frames=5", 5, [("u1", "ann"), ("u2", "bob")])
        assert b'"username": "ann"' in request_bytes(target, 0)
        assert b'"username": "bob"' in request_bytes(target, 1)
        assert request_bytes(target, 2) == request_bytes(target, 0)

    def test_the_length_is_that_of_the_body(self) -> None:
        head, _, body = request_bytes(Target(80, CHAT, "frames=5", 5), 0).partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
