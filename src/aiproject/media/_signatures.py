"""Identifies a file's format by its content, for the message that tells users what they uploaded by mistake.

Raw PCM has no signature: any bytes may be audio. A format is therefore reported only where chance can be ruled out.
Signatures of two bytes (BMP, MP3, AAC) count only together with a second mark that they predict, and plain text only if
all of the file is text.
"""

from __future__ import annotations

import json
import re

from aiproject.codes import Term

__all__ = ["recognise"]

_PREFIXES = (
    (b"\xff\xd8\xff", Term.JPEG_PICTURE),
    (b"\x89PNG\r\n\x1a\n", Term.PNG_PICTURE),
    (b"GIF87a", Term.GIF_PICTURE),
    (b"GIF89a", Term.GIF_PICTURE),
    (b"II*\x00", Term.TIFF_PICTURE),
    (b"MM\x00*", Term.TIFF_PICTURE),
    (b"%PDF-", Term.PDF_DOCUMENT),
    (b"PK\x03\x04", Term.ZIP_OR_OFFICE),
    (b"PK\x05\x06", Term.ZIP_ARCHIVE),
    (b"\x1f\x8b\x08", Term.GZIP_ARCHIVE),
    (b"Rar!\x1a\x07", Term.RAR_ARCHIVE),
    (b"7z\xbc\xaf\x27\x1c", Term.SEVEN_ZIP_ARCHIVE),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Term.OLD_OFFICE_DOCUMENT),
    (b"OggS", Term.OGG_AUDIO),
    (b"fLaC", Term.FLAC_AUDIO),
    (b"#!AMR", Term.AMR_AUDIO),
    (b"#!SILK_V3", Term.SILK_AUDIO),
    (b"\x02#!SILK_V3", Term.SILK_AUDIO),
    (b"\x1aE\xdf\xa3", Term.WEBM_VIDEO),
    (b"0&\xb2u\x8ef\xcf\x11", Term.WMA_AUDIO),
    (b".snd\x00\x00\x00", Term.AU_AUDIO),
    (b"caff\x00\x01", Term.CAF_AUDIO),
    (b"RF64", Term.RF64_AUDIO),
    (b"RIFX", Term.RIFX_AUDIO),
)
# Containers that begin with a size field: the bytes at offset 8 identify the content.
_RIFF_FORMS = {b"WEBP": Term.WEBP_PICTURE, b"AVI ": Term.AVI_VIDEO, b"WAVE": Term.WAV_AUDIO}
_FORM_TYPES = {b"AIFF": Term.AIFF_AUDIO, b"AIFC": Term.AIFF_AUDIO}
_PICTURE_BRANDS = frozenset({b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis"})
_MARKUP = (
    (b"<!doctype html", Term.HTML_PAGE),
    (b"<html", Term.HTML_PAGE),
    (b"<head", Term.HTML_PAGE),
    (b"<body", Term.HTML_PAGE),
    (b"<?xml", Term.XML_DOCUMENT),
    (b"<svg", Term.SVG_PICTURE),
)
# Bytes: a millisecond at 16 kHz. Shorter text could be audio by chance; longer text cannot.
_MIN_TEXT = 32
_MAX_JSON = 1024 * 1024
# Control characters that text files do not contain; tab, line feed, form feed and carriage return are allowed.
_CONTROLS = re.compile(rb"[\x00-\x08\x0b\x0e-\x1f\x7f]")

# ISO/IEC 11172-3 and 13818-3, header of an audio frame: bit rates in kbit/s by layer, sample rates by version.
_LAYER1_RATES = (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448)
_LAYER2_RATES = (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_LAYER3_RATES = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_LAYER1_LOW_RATES = (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)
_LOW_RATES = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_SAMPLE_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def recognise(data: bytes) -> Term | None:
    """Return the format of ``data``, or ``None`` if it cannot be identified with certainty.

    Only the beginning is examined, except that text is read to its end. WAV and the accepted picture formats are
    identified as well.
    """
    for prefix, name in _PREFIXES:
        if data.startswith(prefix):
            return name
    return _container(data) or _bitmap(data) or _compressed_audio(data) or _text(data)


def _container(data: bytes) -> Term | None:
    kind = data[8:12]
    if data.startswith(b"RIFF"):
        return _RIFF_FORMS.get(kind, Term.RIFF_FILE)
    if data.startswith(b"FORM"):
        return _FORM_TYPES.get(kind)
    if data[4:8] == b"ftyp":
        return Term.HEIC_PICTURE if kind in _PICTURE_BRANDS else Term.M4A_AUDIO
    return None


def _bitmap(data: bytes) -> Term | None:
    # "BM" alone could be a sample of 19778. In a bitmap, the reserved words are zero and the pixels begin inside it.
    if not data.startswith(b"BM") or len(data) < 26 or data[6:10] != bytes(4):
        return None
    pixels_at = int.from_bytes(data[10:14], "little")
    return Term.BMP_PICTURE if 26 <= pixels_at < len(data) else None


def _compressed_audio(data: bytes) -> Term | None:
    if data.startswith(b"ID3") and len(data) >= 10 and data[3] < 0x10 and not any(byte & 0x80 for byte in data[6:10]):
        return Term.MP3_AUDIO
    length = _mpeg_frame_length(data[:4])
    if length and _mpeg_frame_length(data[length : length + 4]) and data[:2] == data[length : length + 2]:
        return Term.MP3_AUDIO
    length = _adts_frame_length(data[:7])
    if length and _adts_frame_length(data[length : length + 7]):
        return Term.AAC_AUDIO
    return None


def _mpeg_frame_length(header: bytes) -> int:
    """Return the length in bytes of the MPEG audio frame that begins with ``header``; 0 if there is none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] < 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    rate_index, sample_index, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or rate_index in {0, 15} or sample_index == 3:
        return 0
    if version == 3:
        rates = (_LAYER1_RATES, _LAYER2_RATES, _LAYER3_RATES)[layer - 1]
    else:
        rates = _LAYER1_LOW_RATES if layer == 1 else _LOW_RATES
    bits, samples = rates[rate_index - 1] * 1000, _SAMPLE_RATES[version][sample_index]
    if layer == 1:
        return (12 * bits // samples + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // samples + padding


def _adts_frame_length(header: bytes) -> int:
    """Return the length in bytes of the ADTS frame (ISO/IEC 13818-7) beginning with ``header``; 0 if there is none."""
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or header[2] >> 2 & 15 > 12:
        return 0
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return length if length >= 7 else 0


def _text(data: bytes) -> Term | None:
    head = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for prefix, name in _MARKUP:
        if head.startswith(prefix):
            return name
    if head[:1] in {b"{", b"["} and len(data) <= _MAX_JSON and _is_json(data):
        return Term.JSON_TEXT
    if len(data) < _MIN_TEXT or _CONTROLS.search(data):
        return None
    try:
        data.decode()
    except UnicodeDecodeError:
        return None
    # Samples of one or two constant values can look like letters; a sentence has more different ones.
    return Term.TEXT_FILE if len(set(data[:4096])) > 4 else None


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return False
    return True
