"""Detects recordings without any audio: the header of a format with nothing after it.

Tapping the button of a recorder creates one. WAV files are not handled here, because `aiproject.media.audio` reads
their header anyway.

Sources: id3.org, "ID3 tag version 2.4.0", section 3.1; RFC 4867, section 5 (AMR); RFC 3533, section 6 (Ogg); RFC 9639,
sections 8 and 9 (FLAC).
"""

from __future__ import annotations

__all__ = ["is_header_only"]

_MARKS = frozenset({b"#!AMR\n", b"#!AMR-WB\n", b"#!SILK_V3", b"\x02#!SILK_V3"})
"""Formats whose header is constant."""

_ID3_HEADER = 10  # bytes; a footer has the same size
_ID3_FOOTER_FLAG = 0x10
_ID3V1 = 128  # bytes, at the end of the file
_OGG_HEADER = 27  # bytes of a page before its segment table
_OGG_PAGES = 64  # pages of headers; long comments and cover pictures take some dozens
_NO_POSITION = (1 << 64) - 1  # no packet ends on the page
_FLAC_BLOCKS = 256


def is_header_only(data: bytes) -> bool:
    """Whether ``data`` is a complete header of MP3 (its tags), AMR, SILK, Ogg or FLAC and nothing else."""
    return data in _MARKS or _is_tags_only(data) or _is_ogg_without_sound(data) or _is_flac_without_sound(data)


def _is_tags_only(data: bytes) -> bool:
    """Whether the file consists of ID3 tags: version 2 at the start, version 1 at the end, or both."""
    at = 0
    if data.startswith(b"ID3") and len(data) >= _ID3_HEADER:
        size = 0
        for byte in data[6:10]:
            size = size << 7 | byte & 0x7F
        at = _ID3_HEADER + size + (_ID3_HEADER if data[5] & _ID3_FOOTER_FLAG else 0)
    if data.startswith(b"TAG", at) and len(data) == at + _ID3V1:
        return True
    return at > 0 and at == len(data)


def _is_ogg_without_sound(data: bytes) -> bool:
    """Whether the file consists of complete pages none of which ends a sample; such pages hold headers."""
    at = 0
    for _ in range(_OGG_PAGES):
        if not data.startswith(b"OggS", at) or len(data) < at + _OGG_HEADER:
            return False
        if int.from_bytes(data[at + 6 : at + 14], "little") not in (0, _NO_POSITION):
            return False
        segments = data[at + 26]
        body = at + _OGG_HEADER + segments
        at = body + sum(data[at + _OGG_HEADER : body])
        if at >= len(data):
            return at == len(data)
    return False


def _is_flac_without_sound(data: bytes) -> bool:
    """Whether nothing follows the last metadata block."""
    if not data.startswith(b"fLaC"):
        return False
    at, is_last = 4, False
    for _ in range(_FLAC_BLOCKS):
        if is_last or len(data) < at + 4:
            break
        is_last = bool(data[at] & 0x80)
        at += 4 + int.from_bytes(data[at + 1 : at + 4], "big")
    return is_last and at == len(data)
