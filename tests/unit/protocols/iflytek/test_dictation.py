"""Both halves of a dictation, alone and joined by an imaginary wire."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject import errors
from aiproject.protocols.iflytek.dictation.client import MAX_FRAME_BYTES, DictationConversation, dictation_conversation
from aiproject.protocols.iflytek.dictation.dialect import (
    MAX_AUDIO_BASE64,
    MAX_AUDIO_BYTES_PER_FRAME,
    DictationDialect,
    DictationOptions,
    dictation_dialect,
)
from aiproject.protocols.iflytek.dictation.server import DictationRequestError, DictationServerSession
from aiproject.protocols.iflytek.dictation.transcript import MAX_PIECES, MAX_SN, MAX_TRANSCRIPT, Transcript

CLASSIC, LARGE_MODEL = DictationDialect.CLASSIC, DictationDialect.LARGE_MODEL
BOTH = pytest.mark.parametrize("dialect", [CLASSIC, LARGE_MODEL])
SID = "iat000704fa@dx16ade44e4d87a1c802"
APP_ID = "appid001"


def conversation(dialect: DictationDialect, **options: Any) -> DictationConversation:
    return dictation_conversation(dialect, app_id=APP_ID, options=DictationOptions(**options))


def server(dialect: DictationDialect) -> DictationServerSession:
    return DictationServerSession(dialect, app_ids={APP_ID, "appid002"})


def frames_of(dialect: DictationDialect, pcm: bytes, frame_bytes: int = 1280, **options: Any) -> list[dict[str, Any]]:
    outgoing = conversation(dialect, **options).outgoing(pcm, sample_rate=16000, frame_bytes=frame_bytes)
    return [json.loads(frame) for frame in outgoing]


class TestDialect:
    @pytest.mark.parametrize(
        ("url", "dialect"),
        [
            ("wss://iat-api.xfyun.cn/v2/iat", CLASSIC),
            ("ws://ws-Api.xfyun.cn/v2/iat/", CLASSIC),
            ("wss://iat.xf-yun.com/v1", LARGE_MODEL),
            ("wss://iat.cn-huabei-1.xf-yun.com/v1?x=1", LARGE_MODEL),
            ("ws://127.0.0.1:9310/v2/iat", CLASSIC),
            ("ws://127.0.0.1:9310/v1", LARGE_MODEL),
            ("ws://stand-in/behind/a/prefix/v1/", LARGE_MODEL),
            ("ws://iat.xf-yun.com/v1/iat", CLASSIC),
            ("ws://iat.xf-yun.com", CLASSIC),
        ],
    )
    def test_path_decides(self, url: str, dialect: DictationDialect) -> None:
        assert dictation_dialect(url) is dialect

    def test_no_url_is_the_operators_affair(self) -> None:
        with pytest.raises(errors.Misconfigured):
            dictation_dialect("wss://[broken/v1")

    def test_silence_beyond_what_a_dialect_takes_is_misconfigured(self) -> None:
        with pytest.raises(errors.Misconfigured, match="least=1 most=10000"):
            conversation(CLASSIC, end_of_speech_ms=10_001)
        with pytest.raises(errors.Misconfigured, match="least=600 most=60000"):
            conversation(LARGE_MODEL, end_of_speech_ms=599)
        assert conversation(LARGE_MODEL, end_of_speech_ms=60_000).text == ""

    def test_language_is_needed(self) -> None:
        with pytest.raises(errors.Misconfigured, match="DICTATION_LANGUAGE_MISSING"):
            conversation(CLASSIC, language="")


class TestTranscript:
    def test_table_of_the_document_row_by_row(self) -> None:
        transcript = Transcript()
        for sn, pgs, rg, text, display in [
            (1, "apd", None, "今天", "今天"),
            (2, "rpl", [1, 1], "今天天气", "今天天气"),
            (3, "rpl", [2, 2], "今天天气怎么样", "今天天气怎么样"),
            (4, "apd", None, "？", "今天天气怎么样？"),
            (5, "rpl", [3, 4], "今天天气怎么样？", "今天天气怎么样？"),
        ]:
            transcript.add(text, sn=sn, pgs=pgs, rg=rg)
            assert transcript.text == display

    def test_replacing_keeps_earlier_sentences(self) -> None:
        """The trap of a client that replaces everything."""
        transcript = Transcript()
        transcript.add("第一句。", sn=1, pgs="apd")
        transcript.add("第二", sn=2, pgs="apd")
        transcript.add("第二句。", sn=3, pgs="rpl", rg=[2, 2])
        assert transcript.text == "第一句。第二句。"

    def test_corrections_do_not_double_the_text(self) -> None:
        """The trap of a client that appends everything."""
        transcript = Transcript()
        transcript.add("你", sn=1, pgs="apd")
        transcript.add("你好", sn=2, pgs="rpl", rg=[1, 1])
        assert transcript.text == "你好"

    def test_pieces_without_pgs_stay_in_order_of_arrival(self) -> None:
        transcript = Transcript()
        for sn, text in [(1, "a"), (3, "b"), (2, "c"), (2, "d"), (None, "e")]:
            transcript.add(text, sn=sn)
        assert transcript.text == "abcde"

    def test_pieces_with_pgs_stand_by_number(self) -> None:
        transcript = Transcript()
        for sn, text in [(3, "c"), (1, "a"), (2, "b"), (2, "B")]:
            transcript.add(text, sn=sn, pgs="apd")
        assert transcript.text == "aBc"

    def test_a_range_may_be_wider_than_what_is_there(self) -> None:
        transcript = Transcript()
        transcript.add("a", sn=5, pgs="apd")
        transcript.add("b", sn=6, pgs="rpl", rg=[0, 5])
        assert transcript.text == "b"

    def test_a_replacing_piece_takes_its_own_number_too(self) -> None:
        transcript = Transcript()
        for sn, text in [(1, "a"), (2, "b")]:
            transcript.add(text, sn=sn, pgs="apd")
        transcript.add("B", sn=2, pgs="rpl", rg=[1, 1])
        assert transcript.text == "B"

    def test_silence_takes_no_place(self) -> None:
        transcript = Transcript()
        for sn in range(MAX_PIECES + 1):
            transcript.add("", sn=sn, pgs="apd" if sn % 2 else None)
        assert transcript.text == ""

    def test_a_plain_last_piece_ends_a_corrected_transcript(self) -> None:
        transcript = Transcript()
        transcript.add("你好", sn=1, pgs="apd")
        transcript.add("。", sn=1)
        assert transcript.text == "你好。"

    def test_a_correction_reaches_plain_pieces_by_their_own_number(self) -> None:
        transcript = Transcript()
        transcript.add("x", sn=3)
        transcript.add("y", sn=2)  # arrived late, shown after 3, is still number 2
        transcript.add("z", sn=4, pgs="rpl", rg=[2, 2])
        assert transcript.text == "xz"

    @pytest.mark.parametrize(
        ("sn", "pgs", "rg"),
        [
            (None, "apd", None),
            (-1, None, None),
            (MAX_SN + 1, "apd", None),
            (2, "rpl", None),
            (2, "rpl", [1]),
            (2, "rpl", [2, 1]),
            (2, "rpl", [-1, 1]),
            (2, "rpl", [1, MAX_SN + 1]),
            (2, "xyz", None),
        ],
    )
    def test_nonsense_leaves_it_unchanged(self, sn: int | None, pgs: str | None, rg: list[int] | None) -> None:
        transcript = Transcript()
        transcript.add("a", sn=1, pgs="apd")
        with pytest.raises(errors.UpstreamProtocolViolation):
            transcript.add("b", sn=sn, pgs=pgs, rg=rg)
        assert transcript.text == "a"

    def test_length_is_bounded(self) -> None:
        transcript = Transcript()
        transcript.add("x" * MAX_TRANSCRIPT, sn=1)
        transcript.add("", sn=2)
        with pytest.raises(errors.UpstreamProtocolViolation):
            transcript.add("y", sn=3)
        transcript.add("short", sn=4, pgs="rpl", rg=[1, 1])
        assert transcript.text == "short"

    def test_pieces_are_bounded(self) -> None:
        transcript = Transcript()
        for sn in range(MAX_PIECES):
            transcript.add("x", sn=sn, pgs="apd")
        with pytest.raises(errors.UpstreamProtocolViolation):
            transcript.add("x", sn=MAX_PIECES, pgs="apd")

    @given(
        st.lists(
            st.tuples(
                st.text(max_size=3),
                st.one_of(st.none(), st.integers(0, 6), st.integers(-1, 6)),
                st.sampled_from(["apd", "rpl", None]),
                st.one_of(
                    st.lists(st.integers(0, 6), min_size=2, max_size=2).map(sorted),
                    st.none(),
                    st.lists(st.integers(-1, 6), max_size=3),
                ),
            )
        )
    )
    def test_agrees_with_the_ordered_map_of_the_document(
        self, pieces: list[tuple[str, int | None, str | None, list[int] | None]]
    ) -> None:
        """The reference is the map as the document words it, as long as every piece has ``pgs``."""
        transcript = Transcript()
        reference: dict[int, str] = {}
        plain = False
        for text, sn, pgs, rg in pieces:
            try:
                transcript.add(text, sn=sn, pgs=pgs, rg=rg)
            except errors.UpstreamProtocolViolation:
                continue
            plain = plain or pgs is None
            if pgs is None or sn is None:
                continue
            if pgs == "rpl" and rg is not None:
                reference = {key: value for key, value in reference.items() if not rg[0] <= key <= rg[1]}
            reference[sn] = text
        if not plain:
            assert transcript.text == "".join(reference[key] for key in sorted(reference))


class TestOutgoing:
    def test_classic_frames(self) -> None:
        first, middle, last = frames_of(CLASSIC, b"\x01\x02" * 700, dynamic_correction=True, punctuation=False)
        assert first["common"] == {"app_id": APP_ID}
        assert first["business"] == {
            "language": "zh_cn",
            "domain": "iat",
            "accent": "mandarin",
            "vad_eos": 10_000,
            "dwa": "wpgs",
            "ptt": 0,
        }
        assert first["data"]["format"] == "audio/L16;rate=16000"
        assert first["data"]["encoding"] == "raw"
        assert [frame["data"]["status"] for frame in (first, middle, last)] == [0, 1, 2]
        assert middle.keys() == last.keys() == {"data"}
        assert b"".join(base64.b64decode(frame["data"]["audio"]) for frame in (first, middle)) == b"\x01\x02" * 700
        assert last["data"]["audio"] == ""

    def test_large_model_frames(self) -> None:
        first, middle, last = frames_of(LARGE_MODEL, bytes(1400), language="mul_cn", accent="mulacc")
        assert first["parameter"]["iat"] == {
            "domain": "slm",
            "language": "mul_cn",
            "accent": "mulacc",
            "eos": 10_000,
            "result": {"encoding": "utf8", "compress": "raw", "format": "json"},
        }
        assert middle.keys() == last.keys() == {"header", "payload"}
        for frame, status in zip((first, middle, last), (0, 1, 2), strict=True):
            assert frame["header"] == {"app_id": APP_ID, "status": status}
            assert frame["payload"]["audio"]["status"] == status
        assert [frame["payload"]["audio"]["seq"] for frame in (first, middle, last)] == [1, 2, 3]

    @BOTH
    @pytest.mark.parametrize("size", [0, 1, 2, 1280])
    def test_a_short_clip_has_a_first_and_a_last_frame(self, dialect: DictationDialect, size: int) -> None:
        frames = frames_of(dialect, bytes(size))
        statuses = [(frame.get("data") or frame["payload"]["audio"])["status"] for frame in frames]
        assert statuses == [0, 2]

    def test_half_a_sample_is_dropped(self) -> None:
        first, _ = frames_of(CLASSIC, b"\x01\x02\x03")
        assert base64.b64decode(first["data"]["audio"]) == b"\x01\x02"

    def test_largest_frame_is_just_within_the_limit(self) -> None:
        frames = frames_of(CLASSIC, bytes(20_000), frame_bytes=MAX_AUDIO_BYTES_PER_FRAME)
        assert [len(frame["data"]["audio"]) for frame in frames] == [MAX_AUDIO_BASE64, MAX_AUDIO_BASE64, 668, 0]

    @pytest.mark.parametrize(
        ("sample_rate", "frame_bytes", "size"),
        [(44100, 1280, 2), (16000, 0, 2), (16000, 1281, 2), (16000, 9752, 2), (16000, -2, 2), (16000, 2, 2_000_000)],
    )
    def test_arguments_are_checked_at_the_call(self, sample_rate: int, frame_bytes: int, size: int) -> None:
        with pytest.raises(ValueError, match=r"sample rate|frame"):
            conversation(CLASSIC).outgoing(bytes(size), sample_rate=sample_rate, frame_bytes=frame_bytes)


class TestReceive:
    @BOTH
    def test_interim_and_last_results(self, dialect: DictationDialect) -> None:
        ours, theirs = conversation(dialect), server(dialect)
        opening = theirs.opening_frame(sid=SID)
        assert (opening is None) == (dialect is CLASSIC)
        if opening is not None:
            assert ours.receive(opening) is None
        result = ours.receive(theirs.result_frame(["今天", "天气"], sn=1, status=0, is_last=False, sid=SID))
        assert result is not None
        assert (result.text, result.is_last) == ("今天天气", False)
        assert not ours.finished
        result = ours.receive(theirs.result_frame(["。"], sn=2, status=2, is_last=True, sid=SID))
        assert result is not None
        assert (result.text, result.is_last) == ("今天天气。", True)
        assert (ours.text, ours.sid, ours.finished) == ("今天天气。", SID, True)
        ours.connection_ended()

    def test_documented_large_model_frame(self) -> None:
        text = "eyJzbiI6MSwibHMiOmZhbHNlLCJiZyI6MCwiZWQiOjAsInBncyI6ImFwZCIsIndzIjpbeyJiZyI6MCwiY3ciOlt7InciOiLkvaDlpb0iLCJzYyI6MH1dfV19"  # noqa: E501
        ours = conversation(LARGE_MODEL)
        header = {"code": 0, "message": "success", "sid": SID, "status": 1}
        result = {"compress": "raw", "encoding": "utf8", "format": "json", "seq": 1, "status": 1, "text": text}
        ours.receive(json.dumps({"header": header, "payload": {"result": result}}).encode())
        assert ours.text == "你好"

    @pytest.mark.parametrize(
        "data",
        [
            None,
            {},
            {"status": 1, "result": None},
            {"status": 0, "result": {"sn": 1, "ws": None}},
            {"status": 1, "result": {"sn": 1, "ws": [{"cw": []}, {"bg": 1}, {"cw": [{"sc": 0}]}]}},
            {"status": 1, "result": {"sn": 1, "vad": {"ws": [{"bg": 40, "ed": 366, "eg": 63.58}]}, "ws": []}},
        ],
    )
    def test_classic_frames_may_lack_things(self, data: Any) -> None:
        ours = conversation(CLASSIC)
        ours.receive(json.dumps({"code": 0, "data": data}).encode())
        assert ours.text == ""
        assert not ours.finished

    def test_only_the_first_candidate_counts(self) -> None:
        ours = conversation(CLASSIC)
        ws = [{"cw": [{"w": "是", "sc": 0}, {"w": "事"}]}, {"cw": [{"w": "的"}]}]
        ours.receive(json.dumps({"code": 0, "data": {"status": 1, "result": {"sn": 1, "ws": ws}}}).encode())
        assert ours.text == "是的"

    @BOTH
    def test_silence_gives_an_empty_last_result(self, dialect: DictationDialect) -> None:
        ours = conversation(dialect)
        result = ours.receive(server(dialect).result_frame([], sn=1, status=2, is_last=True, sid=SID))
        assert result is not None
        assert (result.text, result.is_last) == ("", True)

    def test_large_model_status_without_result_is_the_end(self) -> None:
        ours = conversation(LARGE_MODEL)
        ours.receive(server(LARGE_MODEL).result_frame(["你好"], sn=1, status=1, is_last=False, sid=SID))
        result = ours.receive(json.dumps({"header": {"code": 0, "sid": SID, "status": 2}}).encode())
        assert result is not None
        assert (result.text, result.is_last) == ("你好", True)

    def test_large_model_result_may_be_padded(self) -> None:
        text = base64.b64encode(json.dumps({"sn": 1, "ws": [{"cw": [{"w": "好"}]}]}).encode() + b"\x00\x00").decode()
        ours = conversation(LARGE_MODEL)
        ours.receive(json.dumps({"header": {"code": 0}, "payload": {"result": {"text": text}}}).encode())
        assert ours.text == "好"

    @BOTH
    def test_end_of_speech_stops_the_sender(self, dialect: DictationDialect) -> None:
        ours, theirs = conversation(dialect), server(dialect)
        outgoing = ours.outgoing(bytes(128_000), sample_rate=16000, frame_bytes=1280)
        for _ in range(3):
            theirs.receive(next(outgoing))
        ours.receive(theirs.result_frame(["好。"], sn=1, status=2, is_last=True, sid=SID))
        theirs.end()
        assert ours.finished
        assert list(outgoing) == []

    @BOTH
    @pytest.mark.parametrize("code", [10101, 10165])
    def test_complaints_after_the_last_result_mean_nothing(self, dialect: DictationDialect, code: int) -> None:
        ours, theirs = conversation(dialect), server(dialect)
        ours.receive(theirs.result_frame(["好。"], sn=1, status=2, is_last=True, sid=SID))
        assert ours.receive(theirs.error_frame(code, "engine inactive", sid=SID)) is None
        assert ours.text == "好。"

    @BOTH
    def test_ended_session_with_text_is_a_last_result(self, dialect: DictationDialect) -> None:
        ours, theirs = conversation(dialect), server(dialect)
        ours.receive(theirs.result_frame(["好。"], sn=1, status=1, is_last=False, sid=SID))
        result = ours.receive(theirs.error_frame(10101, "engine inactive", sid=SID))
        assert result is not None
        assert (result.text, result.is_last) == ("好。", True)

    @BOTH
    def test_ended_session_without_text_is_an_error(self, dialect: DictationDialect) -> None:
        with pytest.raises(errors.UpstreamRefused) as caught:
            conversation(dialect).receive(server(dialect).error_frame(10101, "engine inactive", sid=SID))
        assert caught.value.code == 10101

    @BOTH
    @pytest.mark.parametrize("code", [10005, 10114, 10165, 10313, 11200, 11201, 424242, -1])
    def test_error_codes(self, dialect: DictationDialect, code: int) -> None:
        ours, theirs = conversation(dialect), server(dialect)
        ours.receive(theirs.result_frame(["好"], sn=1, status=1, is_last=False, sid=SID))
        with pytest.raises(errors.UpstreamRefused) as caught:
            ours.receive(theirs.error_frame(code, "no", sid=SID))
        assert (caught.value.code, caught.value.sid) == (code, SID)
        assert not ours.finished

    @BOTH
    def test_early_end_is_a_truncation(self, dialect: DictationDialect) -> None:
        ours = conversation(dialect)
        ours.receive(server(dialect).result_frame(["今天"], sn=1, status=1, is_last=False, sid=SID))
        with pytest.raises(errors.UpstreamTruncated) as caught:
            ours.connection_ended()
        assert caught.value.sid == SID
        assert ours.text == "今天"

    @BOTH
    def test_end_after_the_last_piece_is_none(self, dialect: DictationDialect) -> None:
        ours = conversation(dialect)
        ours.receive(server(dialect).result_frame(["今天"], sn=1, status=1, is_last=True, sid=SID))
        ours.connection_ended()
        assert ours.finished

    @BOTH
    @pytest.mark.parametrize(
        "frame",
        [
            b"",
            b"\xff",
            b"null",
            b"[]",
            b"{}",
            b'{"header":{}}',
            b'{"code":true,"header":{"code":"x"}}',
            b'{"code":1' + b"0" * 30 + b',"header":{"code":1' + b"0" * 30 + b"}}",
            b'{"code":0,"data":[],"header":{"code":0},"payload":5}',
            b'{"code":0,"data":{"result":{"ws":[5]}},"header":{"code":0},"payload":{"result":{"text":"***"}}}',
            b'{"code":0,"data":{"result":{"sn":1.5}},"header":{"code":0},"payload":{"result":{"text":"AAA"}}}',
            b'{"x":' + b"[" * 20_000,
            b'{"code":0,"header":{"code":0},"x":"' + b"x" * MAX_FRAME_BYTES + b'"}',
        ],
        ids=range(13),
    )
    def test_nonsense(self, dialect: DictationDialect, frame: bytes) -> None:
        with pytest.raises(errors.UpstreamProtocolViolation):
            conversation(dialect).receive(frame)


# Objects that look like frames: the protocol's own names with values of every kind.
_NAMES = "code message sid status data result ws cw w sn ls pgs rg header payload text audio common business app_id"
_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(0, 3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["apd", "rpl", "zh_cn", "iat", APP_ID, "e30=", base64.b64encode(b'{"sn":1,"ws":[]}').decode()]),
)
_JSON = st.recursive(
    _VALUES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(_NAMES.split()), inner, max_size=5)
    ),
    max_leaves=20,
)
_PLAUSIBLE = st.one_of(
    _JSON,
    st.builds(
        lambda data, payload: {"code": 0, "data": data, "header": {"code": 0}, "payload": payload},
        _JSON,
        st.builds(lambda inner: {"result": {"text": base64.b64encode(json.dumps(inner).encode()).decode()}}, _JSON),
    ),
)
ARBITRARY_FRAMES = st.lists(st.one_of(st.binary(max_size=64), _PLAUSIBLE.map(lambda value: json.dumps(value).encode())))


@BOTH
class TestArbitraryFrames:
    @given(frames=ARBITRARY_FRAMES)
    def test_client_half_raises_upstream_failures_only(self, dialect: DictationDialect, frames: list[bytes]) -> None:
        ours = conversation(dialect)
        for frame in frames:
            try:
                result = ours.receive(frame)
            except errors.UpstreamFailed:
                continue
            assert result is None or result.text == ours.text

    @given(frames=ARBITRARY_FRAMES)
    def test_server_half_raises_request_errors_only(self, dialect: DictationDialect, frames: list[bytes]) -> None:
        theirs = server(dialect)
        codes = []
        for frame in frames:
            try:
                theirs.receive(frame)
            except DictationRequestError as refused:
                codes.append(refused.code)
        assert codes[1:] == [10165] * (len(codes) - 1)  # after the first refusal the session is over


def classic_first(**changes: Any) -> dict[str, Any]:
    frame: dict[str, Any] = {
        "common": {"app_id": APP_ID},
        "business": {"language": "zh_cn", "domain": "iat", "accent": "mandarin", "vad_eos": 3000, "dwa": "wpgs"},
        "data": {"status": 0, "format": "audio/L16;rate=16000", "encoding": "raw", "audio": "AAAA"},
    }
    return _changed(frame, changes)


def large_model_first(**changes: Any) -> dict[str, Any]:
    iat = {"domain": "slm", "language": "zh_cn", "accent": "mandarin", "eos": 6000, "vinfo": 1, "dwa": "wpgs"}
    audio = {"encoding": "raw", "sample_rate": 16000, "channels": 1, "bit_depth": 16, "seq": 1, "status": 0}
    frame: dict[str, Any] = {
        "header": {"app_id": APP_ID, "status": 0},
        "parameter": {"iat": iat},
        "payload": {"audio": {**audio, "audio": "AAAA"}},
    }
    return _changed(frame, changes)


def _changed(frame: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Set members by path (``data__status=1``); ``None`` removes."""
    for path, value in changes.items():
        *parents, name = path.split("__")
        holder = frame
        for parent in parents:
            holder = holder[parent]
        if value is None:
            del holder[name]
        else:
            holder[name] = value
    return frame


def refusal_of(theirs: DictationServerSession, frame: object) -> DictationRequestError:
    with pytest.raises(DictationRequestError) as caught:
        theirs.receive(frame if isinstance(frame, bytes) else json.dumps(frame).encode())
    return caught.value


class TestServerHalf:
    def test_classic_example(self) -> None:
        theirs = server(CLASSIC)
        piece = theirs.receive(json.dumps(classic_first()).encode())
        assert (piece.pcm, piece.is_last) == (b"\0\0\0", False)
        assert (theirs.app_id, theirs.sample_rate, theirs.language) == (APP_ID, 16000, "zh_cn")
        assert (theirs.dynamic_correction, theirs.end_of_speech_ms, theirs.punctuation) == (True, 3000, True)
        assert theirs.receive(b'{"data":{"status":2}}') == type(piece)(b"", is_last=True)

    def test_large_model_example(self) -> None:
        theirs = server(LARGE_MODEL)
        piece = theirs.receive(json.dumps(large_model_first()).encode())
        assert (piece.pcm, piece.is_last) == (b"\0\0\0", False)
        assert (theirs.dynamic_correction, theirs.end_of_speech_ms) == (True, 6000)

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"common": None}, 10313),
            ({"common__app_id": None}, 10313),
            ({"common__app_id": ""}, 10313),
            ({"common__app_id": "stranger"}, 10313),
            ({"data": None}, 10163),
            ({"data__status": 1}, 10165),
            ({"data__status": 2}, 10165),
            ({"data__status": 3}, 10163),
            ({"data__status": True}, 10163),
            ({"business": None}, 10163),
            ({"business__language": None}, 10163),
            ({"business__language": "xx_xx"}, 11200),
            ({"business__domain": "medical"}, 11200),
            ({"business__accent": None}, 10163),
            ({"business__vad_eos": 10_001}, 10163),
            ({"business__vad_eos": "3000"}, 10163),
            ({"business__ptt": 2}, 10163),
            ({"data__audio": "A" * (MAX_AUDIO_BASE64 + 4)}, 10163),
            ({"data__audio": "AAA"}, 10161),
            ({"data__audio": "语音"}, 10161),
            ({"data__audio": 5}, 10163),
            ({"data__format": "audio/L16;rate=44100"}, 10006),
            ({"data__encoding": "lame"}, 10043),
        ],
    )
    def test_classic_refusals(self, changes: dict[str, Any], code: int) -> None:
        assert refusal_of(server(CLASSIC), classic_first(**changes)).code == code

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"header": None}, 10313),
            ({"header__app_id": None}, 10313),
            ({"header__app_id": "stranger"}, 10313),
            ({"header__status": 1}, 10165),
            ({"payload__audio__status": 1}, 10163),
            ({"parameter": None}, 10163),
            ({"parameter__iat__language": "en_us"}, 11200),
            ({"parameter__iat__domain": "iat"}, 11200),
            ({"parameter__iat__accent": "marsian"}, 10007),
            ({"parameter__iat__eos": 599}, 10163),
            ({"payload__audio__seq": None}, 10163),
            ({"payload__audio__seq": 1_000_000}, 10163),
            ({"payload__audio__sample_rate": 12000}, 10163),
            ({"payload__audio__channels": 2}, 10163),
            ({"payload__audio__encoding": "speex"}, 10043),
            ({"payload__audio__audio": "AAA"}, 10161),
        ],
    )
    def test_large_model_refusals(self, changes: dict[str, Any], code: int) -> None:
        assert refusal_of(server(LARGE_MODEL), large_model_first(**changes)).code == code

    @BOTH
    @pytest.mark.parametrize("frame", [b"", b"\xff", b"[]", b"[" * 20_000])
    def test_what_is_no_json_object(self, dialect: DictationDialect, frame: bytes) -> None:
        assert refusal_of(server(dialect), frame).code == 10160

    def test_message_of_an_oversized_frame_is_the_documented_one(self) -> None:
        refused = refusal_of(server(CLASSIC), classic_first(data__audio="A" * 13_004))
        assert refused.message == "param validate error:length of $.data.audio must be between 0,13000"

    def test_large_model_wants_the_app_id_and_a_rising_number_on_every_frame(self) -> None:
        theirs = server(LARGE_MODEL)
        theirs.receive(json.dumps(large_model_first()).encode())
        late = large_model_first(parameter=None, header__status=1, payload__audio__status=1)
        assert refusal_of(theirs, late).code == 10163  # seq is 1 again
        theirs = server(LARGE_MODEL)
        theirs.receive(json.dumps(large_model_first()).encode())
        late = _changed(late, {"payload__audio__seq": 2, "header__app_id": "appid002"})
        assert refusal_of(theirs, late).code == 10313  # an application of the same key, but another one

    @BOTH
    @pytest.mark.parametrize("sample_rate", [8000, 16000])
    def test_sixty_seconds_and_no_sample_more(self, dialect: DictationDialect, sample_rate: int) -> None:
        minute = bytes(60 * 2 * sample_rate)
        theirs = server(dialect)
        for frame in conversation(dialect).outgoing(minute, sample_rate=sample_rate, frame_bytes=9600):
            theirs.receive(frame)
        assert theirs.audio_seconds == 60
        theirs = server(dialect)
        frames = list(conversation(dialect).outgoing(minute + b"\0\0", sample_rate=sample_rate, frame_bytes=9600))
        for frame in frames[:-2]:
            theirs.receive(frame)
        assert refusal_of(theirs, frames[-2]).code == 10114

    @BOTH
    def test_nothing_may_follow_the_end(self, dialect: DictationDialect) -> None:
        frames = list(conversation(dialect).outgoing(bytes(2560), sample_rate=16000, frame_bytes=1280))
        theirs = server(dialect)
        for frame in frames:
            theirs.receive(frame)
        assert refusal_of(theirs, frames[1]).code == 10165
        ended = server(dialect)
        ended.receive(frames[0])
        ended.end()
        assert refusal_of(ended, frames[1]).code == 10101

    @BOTH
    def test_a_second_first_frame_is_refused(self, dialect: DictationDialect) -> None:
        theirs = server(dialect)
        first = next(conversation(dialect).outgoing(b"", sample_rate=16000, frame_bytes=1280))
        theirs.receive(first)
        assert refusal_of(theirs, first).code == 10165


def _speak(theirs: DictationServerSession, heard: Iterator[bytes]) -> Iterator[bytes]:
    """A platform that hears one character in each 0.5 s and corrects itself once, if asked for corrections."""
    saying = "今天天气怎么样"
    appended: Literal["apd"] | None = None
    sn = 0
    pending = b""
    for frame in heard:
        opening = theirs.opening_frame(sid=SID) if theirs.audio_bytes == 0 and not sn else None
        piece = theirs.receive(frame)
        if opening is not None:
            yield opening
        appended = "apd" if theirs.dynamic_correction else None
        pending += piece.pcm
        while len(pending) >= theirs.sample_rate and sn < len(saying):
            pending = pending[theirs.sample_rate :]
            sn += 1
            if theirs.dynamic_correction and sn > 1:
                yield theirs.result_frame(
                    [saying[:sn]], sn=sn, pgs="rpl", rg=(sn - 1, sn - 1), status=1, is_last=False, sid=SID
                )
            else:
                yield theirs.result_frame([saying[sn - 1]], sn=sn, pgs=appended, status=1, is_last=False, sid=SID)
        if piece.is_last:
            yield theirs.result_frame(["？"], sn=sn + 1, pgs=appended, status=2, is_last=True, sid=SID)
            theirs.end()


@BOTH
@pytest.mark.parametrize("dynamic_correction", [False, True])
@pytest.mark.parametrize("sample_rate", [8000, 16000])
class TestImaginaryWire:
    def test_whole(self, dialect: DictationDialect, dynamic_correction: bool, sample_rate: int) -> None:
        """Everything is sent, then everything is read."""
        ours, theirs = conversation(dialect, dynamic_correction=dynamic_correction), server(dialect)
        pcm = bytes(7 * sample_rate)
        sent = list(ours.outgoing(pcm, sample_rate=sample_rate, frame_bytes=8000))
        for frame in list(_speak(theirs, iter(sent))):
            ours.receive(frame)
        assert ours.text == "今天天气怎么样？"
        assert ours.finished
        assert theirs.audio_bytes == len(pcm)

    def test_frame_by_frame(self, dialect: DictationDialect, dynamic_correction: bool, sample_rate: int) -> None:
        """Each answer is read before the next frame goes out; text only grows here."""
        ours, theirs = conversation(dialect, dynamic_correction=dynamic_correction), server(dialect)
        interim: list[str] = []
        outgoing = ours.outgoing(bytes(7 * sample_rate), sample_rate=sample_rate, frame_bytes=1280)
        for frame in _speak(theirs, outgoing):
            result = ours.receive(frame)
            if result is not None:
                interim.append(result.text)
        assert interim == ["今天天气怎么样？"[:length] for length in range(1, 9)]
        ours.connection_ended()
