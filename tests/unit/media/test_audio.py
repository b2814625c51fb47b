"""Sound of any WAV flavour becomes 16-bit mono; what is no sound, or too much of it, is refused as a whole."""

from __future__ import annotations

import contextlib
import io
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import example, given
from hypothesis import strategies as st

from aiproject.errors import InvalidInput, UnusableFile
from aiproject.media._empty import is_header_only
from aiproject.media.audio import Pcm, prepare_audio
from aiproject.messages.formatting import Language, format_error

RAMP = b"".join(struct.pack("<h", n % 2000 - 1000) for n in range(1600))


def tone(rate: int, seconds: float = 0.5) -> npt.NDArray[np.float64]:
    time = np.arange(round(rate * seconds)) / rate
    return 0.5 * np.sin(2 * np.pi * 440 * time)


def wav(rate: int, *channels: npt.NDArray[Any], subtype: str = "PCM_16", form: str = "WAV") -> bytes:
    out = io.BytesIO()
    soundfile.write(out, np.stack(channels, axis=1), rate, format=form, subtype=subtype)
    return out.getvalue()


def riff(
    samples: bytes,
    *,
    tag: int = 1,
    channels: int = 1,
    rate: int = 16000,
    bits: int = 16,
    frame_bytes: int | None = None,
    size: int | None = None,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A WAV file with a header of our choice, right or wrong."""
    frame = channels * bits // 8 if frame_bytes is None else frame_bytes
    layout = struct.pack("<HHIIHH", tag, channels, rate, rate * frame % 2**32, frame, bits)
    data = b"data" + struct.pack("<I", len(samples) if size is None else size) + samples
    body = b"WAVE" + before + b"fmt " + struct.pack("<I", len(layout)) + layout + data + after
    return b"RIFF" + struct.pack("<I", len(body)) + body


def as_float(pcm: Pcm) -> npt.NDArray[np.float64]:
    return np.frombuffer(pcm.samples, "<i2") / 32768.0


class TestRawPcm:
    @given(st.sampled_from([16000, 8000]), st.integers(1, 500))
    def test_it_passes_through(self, rate: int, count: int) -> None:
        pcm = prepare_audio(b"\x01\x80" * count, rate=rate)
        assert pcm == Pcm(b"\x01\x80" * count, rate)

    def test_its_duration_is_rounded_up(self) -> None:
        assert prepare_audio(bytes(32000)).duration_ms == 1000
        assert prepare_audio(bytes(32002)).duration_ms == 1001
        assert prepare_audio(bytes(2), rate=8000).duration_ms == 1

    @pytest.mark.parametrize("rate", [16000, 8000])
    def test_a_minute_is_accepted_and_not_a_sample_more(self, rate: int) -> None:
        assert prepare_audio(bytes(rate * 2 * 60), rate=rate).duration_ms == 60_000
        with pytest.raises(UnusableFile, match=r"AUDIO_TOO_LONG .*limit=60"):
            prepare_audio(bytes(rate * 2 * 60 + 2), rate=rate)

    def test_an_odd_number_of_bytes_is_refused(self) -> None:
        with pytest.raises(UnusableFile, match="AUDIO_ODD_LENGTH"):
            prepare_audio(bytes(3201))

    @pytest.mark.parametrize("rate", [0, -1, 44100, 48000])
    def test_another_rate_is_the_callers_mistake(self, rate: int) -> None:
        with pytest.raises(InvalidInput) as refusal:
            prepare_audio(RAMP, rate=rate)
        assert "16000" in format_error(refusal.value, Language.ZH)

    @pytest.mark.parametrize("start", [b"\xff\xfb\x90\x44", b"\xff\xf1\x50\x80", b"BM\x00\x00", b"{ ", b"ID", b"<h"])
    def test_sound_that_only_begins_like_another_format(self, start: bytes) -> None:
        assert prepare_audio(start + RAMP).samples == start + RAMP

    def test_a_held_tone_that_spells_letters(self) -> None:
        assert prepare_audio(b"ab" * 4000).duration_ms == 250

    def test_the_sound_is_not_in_its_repr(self) -> None:
        assert "samples" not in repr(prepare_audio(RAMP))


class TestWav:
    @pytest.mark.parametrize("rate", [16000, 8000])
    def test_what_fits_passes_through_bit_by_bit(self, rate: int) -> None:
        assert prepare_audio(riff(RAMP, rate=rate)) == Pcm(RAMP, rate)

    def test_its_header_wins_over_the_declared_rate(self) -> None:
        assert prepare_audio(riff(RAMP), rate=8000).sample_rate == 16000

    @pytest.mark.parametrize("form", ["WAV", "WAVEX"])
    @pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW"])
    def test_every_simple_codec_is_heard(self, form: str, subtype: str) -> None:
        pcm = prepare_audio(wav(44100, tone(44100), tone(44100), subtype=subtype, form=form))
        assert (pcm.sample_rate, pcm.duration_ms) == (16000, 500)
        # The ends ring from the resampler; the middle is the same tone.
        assert np.abs(as_float(pcm) - tone(16000))[200:-200].max() < 0.02

    @pytest.mark.parametrize("rate", [4000, 11025, 22050, 47999, 96000, 192000])
    def test_every_rate_keeps_the_length(self, rate: int) -> None:
        assert prepare_audio(wav(rate, tone(rate))).duration_ms == 500

    def test_channels_are_averaged(self) -> None:
        left, right = np.full(1600, 0.5), np.full(1600, -0.25)
        assert set(np.frombuffer(prepare_audio(wav(16000, left, right)).samples, "<i2")) == {4096}

    def test_many_blocks_are_joined_without_a_seam(self) -> None:
        pcm = prepare_audio(wav(48000, tone(48000, 3)))
        assert np.abs(as_float(pcm) - tone(16000, 3))[200:-200].max() < 0.002

    @pytest.mark.parametrize(
        "values", [[np.inf, -np.inf], [np.nan, np.nan], [1e30, 1e30], [-5.0, -5.0], [np.inf, np.nan]]
    )
    def test_float_samples_beyond_reason_are_clipped(self, values: list[float]) -> None:
        samples = struct.pack("<2f", *values) * 100
        pcm = prepare_audio(riff(samples, tag=3, channels=2, bits=32))
        assert len(set(np.frombuffer(pcm.samples, "<i2"))) == 1

    def test_20_bits_stand_in_24(self) -> None:
        pcm = prepare_audio(riff(b"\x00\x00\x40" * 100, bits=20, frame_bytes=3))
        assert set(np.frombuffer(pcm.samples, "<i2")) == {16384}

    @pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF000, 0x80000000])
    def test_a_size_left_open_reaches_to_the_end(self, size: int) -> None:
        assert prepare_audio(riff(RAMP, size=size)).samples == RAMP

    def test_chunks_around_the_samples_are_no_sound(self) -> None:
        note = b"LIST\x05\x00\x00\x00INFOx\x00"
        assert prepare_audio(riff(RAMP, before=note, after=note + b"id3 \x02\x00\x00\x00ab")).samples == RAMP

    def test_less_than_a_frame_at_the_end_is_left_out(self) -> None:
        assert prepare_audio(riff(RAMP + b"\x01", size=0xFFFFFFFF)).samples == RAMP

    @pytest.mark.parametrize("rate", [16000, 44100])
    def test_a_minute_is_accepted_and_not_a_sample_more(self, rate: int) -> None:
        assert prepare_audio(riff(bytes(rate * 60), bits=8, rate=rate)).duration_ms == 60_000
        with pytest.raises(UnusableFile, match=r"AUDIO_TOO_LONG .*limit=60"):
            prepare_audio(riff(bytes(rate * 60 + 1), bits=8, rate=rate))

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            (b"RIFF", "损坏"),
            (b"RIFF\x00\x00\x00\x00WA", "损坏"),
            (b"RIFF\x00\x00\x00\x00WAVE", "损坏"),
            (riff(RAMP)[:30], "损坏"),
            (riff(RAMP).replace(b"fmt ", b"frm "), "损坏"),
            (riff(RAMP).replace(b"data", b"dat\x00"), "损坏"),
            (riff(RAMP, frame_bytes=0), "损坏"),
            (riff(RAMP, channels=0), "损坏"),
            (riff(RAMP, tag=0xFFFE), "损坏"),
            (riff(RAMP)[:-200], "不完整"),
            (riff(RAMP, tag=0x55), "MP3"),
            (riff(RAMP, tag=0x11), "ADPCM"),
            (riff(RAMP, tag=0x1234), "0x1234"),
            (riff(RAMP, bits=12, frame_bytes=8), "12 位"),
            (riff(RAMP, channels=9), "9 声道"),
            (riff(RAMP, rate=192001), "192001"),
            (riff(RAMP, rate=1), "1 Hz"),
            (b"RIFF" + bytes(4) + b"WAVE" + b"junk\x00\x00\x00\x00" * 1000 + riff(RAMP)[12:], "损坏"),
        ],
    )
    def test_what_cannot_be_heard_is_said(self, data: bytes, says: str) -> None:
        with pytest.raises(UnusableFile) as refusal:
            prepare_audio(data)
        assert says in format_error(refusal.value, Language.ZH)

    @given(st.data())
    def test_any_damage_ends_in_sound_or_a_refusal(self, data: st.DataObject) -> None:
        file = bytearray(riff(RAMP[:200], tag=data.draw(st.sampled_from([1, 3, 6, 7])), bits=8))
        for _ in range(data.draw(st.integers(1, 6))):
            file[data.draw(st.integers(4, 60))] = data.draw(st.integers(0, 255))
        with contextlib.suppress(UnusableFile):
            assert 0 <= prepare_audio(bytes(file)).duration_ms <= 60_000


class TestOtherFormats:
    @pytest.mark.parametrize(
        ("data", "name"),
        [
            (b"\xff\xd8\xff\xe0" + bytes(100), "JPEG"),
            (b"\x89PNG\r\n\x1a\n" + bytes(100), "PNG"),
            (b"GIF89a" + bytes(100), "GIF"),
            (b"BM" + struct.pack("<IIII", 126, 0, 54, 40) + bytes(108), "BMP"),
            (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "WebP"),
            (b"%PDF-1.7\n", "PDF"),
            (b"PK\x03\x04" + bytes(100), "ZIP"),
            (b"\x1f\x8b\x08" + bytes(101), "GZIP"),
            (b"\n <!DOCTYPE html><p>", "HTML"),
            (b"\xef\xbb\xbf<?xml version='1.0'?>", "XML"),
            (b'{"uuid": "0"}', "JSON"),
            (b"ID3\x04\x00\x00\x00\x00\x00\x00" + bytes(100), "MP3"),
            (b"\xff\xfb\x90\x44" + bytes(413) + b"\xff\xfb\x90\x44" + bytes(413), "MP3"),
            (b"\xff\xf3\x40\xc4" + bytes(100) + b"\xff\xf3\x40\xc4" + bytes(100), "MP3"),
            (b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(9) + b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(9), "AAC"),
            (b"OggS" + bytes(100), "OGG"),
            (b"fLaC" + bytes(100), "FLAC"),
            (b"\x00\x00\x00\x20ftypM4A " + bytes(100), "M4A"),
            (b"#!AMR\n" + bytes(100), "AMR"),
            (b"\x1aE\xdf\xa3" + bytes(100), "WebM"),
            (b"FORM\x00\x00\x00\x10AIFF" + bytes(100), "AIFF"),
            (b"This is plain text that somebody mistook for sound.\n", "文本"),
            ("这是一段被误当作录音上传的中文文本，长度足够。".encode(), "文本"),
        ],
    )
    def test_they_are_named_and_what_is_wanted_is_said(self, data: bytes, name: str) -> None:
        with pytest.raises(UnusableFile) as refusal:
            prepare_audio(data)
        assert name in format_error(refusal.value, Language.ZH)
        assert "PCM 或 WAV" in format_error(refusal.value, Language.ZH)

    @pytest.mark.parametrize(
        ("form", "subtype", "name"),
        [
            ("MP3", "MPEG_LAYER_III", "MP3"),
            ("OGG", "VORBIS", "OGG"),
            ("FLAC", "PCM_16", "FLAC"),
            ("AIFF", "PCM_16", "AIFF"),
            ("AU", "PCM_16", "AU"),
            ("CAF", "PCM_16", "CAF"),
            ("RF64", "PCM_16", "RF64"),
        ],
    )
    def test_real_files_are_named(self, form: str, subtype: str, name: str) -> None:
        with pytest.raises(UnusableFile, match=name):
            prepare_audio(wav(16000, tone(16000), subtype=subtype, form=form))

    def test_json_of_absurd_depth_does_no_harm(self) -> None:
        assert prepare_audio(b"[" * 100_000).duration_ms == 3125

    @given(st.binary(min_size=2, max_size=400))
    @example(b"#!SILK_V3")
    def test_any_bytes_end_in_sound_or_a_refusal(self, data: bytes) -> None:
        with contextlib.suppress(UnusableFile):
            assert prepare_audio(data).samples == (b"" if is_header_only(data) else data)


def ogg_page(*packets: bytes, position: int) -> bytes:
    """A page of whole packets, without its checksum, at which nobody looks."""
    segments = b"".join(bytes([255] * (len(packet) // 255) + [len(packet) % 255]) for packet in packets)
    head = b"OggS\0\0" + position.to_bytes(8, "little") + bytes(12) + bytes([len(segments)])
    return head + segments + b"".join(packets)


ID3 = b"ID3\x04\x00\x00" + bytes([0, 0, 1, 2]) + bytes(130)
OPUS_HEADERS = ogg_page(b"OpusHead" + bytes(11), position=0) + ogg_page(b"OpusTags" + bytes(300), position=0)
FLAC_INFO = b"fLaC\x80\x00\x00\x22" + bytes(34)

NO_SOUND = {
    "no bytes": b"",
    "WAV": riff(b""),
    "WAV with another chunk behind": riff(b"", after=b"LIST\x04\x00\x00\x00INFO"),
    "WAV with less than a sample": riff(b"\x01", size=1),
    "WAV of a streaming writer": riff(b"", size=0xFFFFFFFF),
    "WAV without a data chunk": riff(b"")[:36],
    "WAV of a rate to be changed": riff(b"", rate=44100),
    "ID3": ID3,
    "ID3 with a footer": ID3[:5] + b"\x10" + ID3[6:] + b"3DI" + bytes(7),
    "ID3 in front and behind": ID3 + b"TAG" + bytes(125),
    "ID3 behind": b"TAG" + bytes(125),
    "AMR": b"#!AMR\n",
    "AMR-WB": b"#!AMR-WB\n",
    "SILK": b"#!SILK_V3",
    "SILK of a chat program": b"\x02#!SILK_V3",
    "Ogg": OPUS_HEADERS,
    "Ogg with a page on which nothing ends": OPUS_HEADERS + ogg_page(position=(1 << 64) - 1),
    "FLAC": FLAC_INFO,
    "FLAC with padding": FLAC_INFO.replace(b"\x80", b"\x00", 1) + b"\x81\x00\x00\x04" + bytes(4),
}


class TestNoSound:
    """What a recorder leaves whose button is only tapped."""

    @pytest.mark.parametrize("data", list(NO_SOUND.values()), ids=list(NO_SOUND))
    def test_it_is_a_recording_of_nothing(self, data: bytes) -> None:
        audio = prepare_audio(data)
        assert (audio.samples, audio.duration_ms) == (b"", 0)
        assert audio.sample_rate in (8000, 16000)

    @pytest.mark.parametrize(
        "data",
        [
            ID3 + b"\xff\xfb\x90\x44" * 8,
            b"#!AMR\n" + b"\x3c" * 32,
            OPUS_HEADERS + ogg_page(b"sound", position=960),
            OPUS_HEADERS[:-1],
            FLAC_INFO + b"\xff\xf8" * 8,
            FLAC_INFO[:-1],
            b"#!SILK_V3" + bytes(20),
        ],
        ids=["MP3", "AMR", "Ogg", "cut Ogg", "FLAC", "cut FLAC", "SILK"],
    )
    def test_with_sound_behind_it_or_cut_it_is_refused_as_before(self, data: bytes) -> None:
        with pytest.raises(UnusableFile):
            prepare_audio(data)

    @given(st.binary(max_size=400))
    def test_any_bytes_behind_a_mark_end_in_sound_or_a_refusal(self, tail: bytes) -> None:
        for mark in (b"", b"ID3\x04\x00\x00", b"OggS\x00\x00", b"fLaC", b"#!AMR\n", b"TAG"):
            with contextlib.suppress(UnusableFile):
                prepare_audio(mark + tail)
