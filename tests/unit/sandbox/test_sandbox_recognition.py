"""Cutting sound into utterances, measuring silence, resampling, and setting blanks."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject.protocols.iflytek.dictation.dialect import DictationDialect
from aiproject.protocols.iflytek.dictation.server import DictationServerSession
from aiproject.sandbox.dictation import ResultWriter
from aiproject.sandbox.recognition import RATE, Piece, To16k, TrailingSilence, Utterances, insert_spaces

Samples = npt.NDArray[np.int16]


def sound(seconds: float) -> Samples:
    return np.random.default_rng(1).integers(-5000, 5000, int(seconds * RATE)).astype(np.int16)


def silence(seconds: float) -> Samples:
    return np.zeros(int(seconds * RATE), dtype=np.int16)


def cut(*parts: Samples, piece: int = 10**9) -> list[float]:
    """Lengths in seconds of the utterances found, the whole being fed in pieces of so many samples."""
    whole = np.concatenate(parts)
    utterances = Utterances()
    for start in range(0, len(whole), piece):
        utterances.feed(whole[start : start + piece])
    utterances.finish()
    return [round(len(utterance) / RATE, 2) for utterance in utterances.complete]


class TestUtterances:
    def test_pauses_separate(self) -> None:
        assert cut(silence(2), sound(1), silence(1), sound(2)) == [1.8, 2.2]  # 0.2 s before and 0.6 s behind are kept

    def test_short_pauses_do_not(self) -> None:
        assert cut(sound(1), silence(0.4), sound(1)) == [2.4]

    def test_silence_alone_is_nothing(self) -> None:
        assert cut(silence(3)) == []
        assert cut(silence(0)) == []

    def test_long_speech_is_cut_at_its_quietest_place(self) -> None:
        quiet = (sound(0.04) // 8).astype(np.int16)
        lengths = cut(sound(11), quiet, sound(5))
        assert lengths[0] == pytest.approx(11.02, abs=0.03)
        assert sum(lengths) == pytest.approx(16.04, abs=0.01)

    @given(st.integers(50, 40_000))
    def test_however_it_is_fed(self, piece: int) -> None:
        parts = (silence(0.3), sound(0.5), silence(0.7), sound(0.4), silence(0.1))
        assert cut(*parts, piece=piece) == cut(*parts)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3000)), max_size=6))
def test_silence_at_the_end(parts: list[tuple[bool, int]]) -> None:
    watch = TrailingSilence()
    silent = 0
    for is_loud, length in parts:
        watch.feed(np.full(length, 900 if is_loud else 1, dtype=np.int16))
        silent = silent + length if not is_loud else 0 if length else silent
    assert watch.milliseconds == pytest.approx(silent / 16)


class TestResampling:
    @pytest.mark.parametrize("piece", [1, 7, 1280, 10**6])
    def test_8_khz_becomes_16(self, piece: int) -> None:
        tone = (np.sin(np.arange(8000) * 2 * np.pi * 440 / 8000) * 9000).astype("<i2").tobytes()
        convert = To16k(8000)
        parts = [convert.convert(tone[i : i + piece]) for i in range(0, len(tone), piece)] if piece > 1 else []
        whole = np.concatenate([*parts, convert.convert(tone if piece == 1 else b"", is_last=True)])
        assert len(whole) == 16000
        spectrum = np.abs(np.fft.rfft(whole.astype(np.float64)))
        assert int(np.argmax(spectrum)) == 440

    def test_odd_bytes_wait_for_their_other_half(self) -> None:
        convert = To16k(RATE)
        assert list(convert.convert(b"\x01\x00\x02")) == [1]
        assert list(convert.convert(b"\x00\x03")) == [2]


@pytest.mark.parametrize(
    ("words", "after_text", "text"),
    [
        (["hello", "world"], False, "hello world"),
        (["hello"], True, " hello"),
        (["你好", "世界"], False, "你好世界"),
        (["hello", ",", "world"], False, "hello, world"),
        (["用", "Python", "写"], False, "用Python写"),
    ],
)
def test_blanks(words: list[str], after_text: bool, text: str) -> None:
    assert "".join(insert_spaces(words, after_text=after_text)) == text


class TestResultWriter:
    """Corrections are put together by the rules of the document, never by this room's own idea of them."""

    pieces = st.lists(
        st.tuples(
            st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=3), max_size=2),
            st.lists(st.sampled_from("xyz"), max_size=5),
        ),
        max_size=5,
    )

    @given(pieces, st.booleans(), st.booleans())
    def test_final_text_survives_every_detour(
        self, utterances: list[tuple[list[list[str]], list[str]]], corrects: bool, is_elaborate: bool
    ) -> None:
        session = DictationServerSession(DictationDialect.CLASSIC, app_ids=("a",))
        writer = ResultWriter(session, "iat1", corrects=corrects, is_elaborate=is_elaborate)
        frames = []
        for interims, final in utterances:
            for interim in interims:
                frames += writer.write(Piece(tuple(interim), is_interim=True))
            frames += writer.write(Piece(tuple(final)))
        frames.append(writer.last())
        display: dict[int, str] = {}
        for number, frame in enumerate(frames, start=1):
            data = json.loads(frame)["data"]
            result = data["result"]
            assert result["sn"] == number
            assert (data["status"] == 2) == (number == len(frames))
            if result.get("pgs") == "rpl":
                display = {sn: text for sn, text in display.items() if not result["rg"][0] <= sn <= result["rg"][1]}
            display[number] = "".join(word["cw"][0]["w"] for word in result["ws"])
        assert "".join(display[sn] for sn in sorted(display)) == "".join(
            word for _, final in utterances for word in final
        )
