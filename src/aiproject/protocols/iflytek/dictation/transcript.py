"""The text of a dictation, assembled from its pieces.

Source: iFlytek, 《语音听写（流式版）WebAPI 文档》, members ``sn``, ``pgs`` and ``rg`` of a result; results of the large
model have the same members.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from operator import attrgetter

import msgspec

from aiproject import errors

__all__ = ["MAX_PIECES", "MAX_SN", "MAX_TRANSCRIPT", "Transcript"]

MAX_SN = 1_000_000
"""The largest valid piece number. One connection carries 60 s of audio, so real ones stay in the hundreds."""

MAX_PIECES = 4_096
"""Pieces kept at a time. The vendor sends a few per second, so 60 s give some hundreds at most."""

MAX_TRANSCRIPT = 65_536
"""Characters of text kept; real speech of 60 s has less than a hundredth of it."""


class _Piece(msgspec.Struct, frozen=True):
    position: int
    arrival: int
    sn: int
    text: str


_order = attrgetter("position", "arrival")


class Transcript:
    """Assembles the pieces of one dictation in the right order, corrections included.

    The ``sn`` of a piece with ``pgs`` determines its position, whatever the order of arrival: ``apd`` sets the text of
    that ``sn``, ``rpl`` first removes every piece from ``rg[0]`` to ``rg[1]``, both included. A piece without ``pgs``
    is appended at the end, so that a session without dynamic correction is in order of arrival. One session may contain
    both kinds, because the vendor omits ``pgs`` silently where the licence lacks it.
    """

    def __init__(self) -> None:
        self._pieces: list[_Piece] = []
        self._arrivals = 0
        self._text: str | None = ""

    @property
    def text(self) -> str:
        """All pieces, joined."""
        if self._text is None:
            self._text = "".join(piece.text for piece in self._pieces)
        return self._text

    def add(self, text: str, *, sn: int | None, pgs: str | None = None, rg: Sequence[int] | None = None) -> None:
        """Add one piece at its position.

        Args:
            text: the piece's words, joined.
            sn: the piece's number; only a piece without ``pgs`` may lack it.
            pgs: ``apd``, ``rpl``, or nothing.
            rg: with ``rpl``, the range of ``sn`` to replace.

        Raises:
            errors.UpstreamProtocolViolation: the piece is invalid, or would make the transcript too large. The
                transcript is unchanged then.
        """
        if sn is not None and not 0 <= sn <= MAX_SN:
            raise errors.UpstreamProtocolViolation(f"dictation: piece number out of range (0 to {MAX_SN})")
        if pgs:
            if sn is None:
                raise errors.UpstreamProtocolViolation("dictation: a correctable piece without its number")
            first, last = _range_to_drop(sn, pgs, rg)
            pieces = [piece for piece in self._pieces if piece.sn != sn and not first <= piece.sn <= last]
            position = sn
        else:
            pieces = self._pieces.copy()
            position = max(sn or 0, pieces[-1].position if pieces else 0)
        if text:  # silence is not stored
            self._arrivals += 1
            insort(pieces, _Piece(position, self._arrivals, position if sn is None else sn, text), key=_order)
        if len(pieces) > MAX_PIECES or sum(len(piece.text) for piece in pieces) > MAX_TRANSCRIPT:
            raise errors.UpstreamProtocolViolation(
                f"dictation: more text than {MAX_TRANSCRIPT} characters in {MAX_PIECES} pieces"
            )
        self._pieces = pieces
        self._text = None


def _range_to_drop(sn: int, pgs: str, rg: Sequence[int] | None) -> tuple[int, int]:
    if pgs == "apd":
        return sn, sn
    if pgs != "rpl":
        raise errors.UpstreamProtocolViolation("dictation: pgs is neither apd nor rpl")
    if rg is None or len(rg) != 2 or not 0 <= rg[0] <= rg[1] <= MAX_SN:
        raise errors.UpstreamProtocolViolation("dictation: a replacing piece without a usable range")
    return rg[0], rg[1]
