"""Reading order, and the picture engine that reads nothing."""

from __future__ import annotations

import hashlib
import io

import pytest

from aiproject.sandbox.engine_worker import read_message, write_message
from aiproject.sandbox.engines import CannedPictures, Line, reading_order
from aiproject.sandbox.images import picture_size


def box(left: float, top: float, width: float = 100, height: float = 40) -> tuple[float, ...]:
    return (left, top, left + width, top, left + width, top + height, left, top + height)


def test_rows_from_the_top_and_from_the_left() -> None:
    lines = reading_order(
        [
            Line("second", box(0, 100)),
            Line("42.50", box(400, 6)),
            Line("Total", box(0, 0)),
            Line("line", box(150, 92)),
        ]
    )
    assert [line.text for line in lines] == ["Total 42.50", "second line"]
    assert lines[0].box == (0, 0, 500, 0, 500, 46, 0, 46)


def test_small_print_beside_a_headline_stays_in_its_row() -> None:
    lines = reading_order([Line("SALE", box(0, 0, height=200)), Line("today", box(300, 80)), Line("end", box(0, 210))])
    assert [line.text for line in lines] == ["SALE today", "end"]


def test_nothing() -> None:
    assert reading_order([]) == []
    assert [line.text for line in reading_order([Line("a"), Line("b")])] == ["a", "b"]


async def test_canned_text_by_hash() -> None:
    engine = CannedPictures({hashlib.sha256(b"known").hexdigest(): "one\ntwo"})
    assert [line.text for line in await engine.read(b"known")] == ["one", "two"]
    other = await engine.read(b"other")
    assert other[0].text.startswith("【沙盒】")
    assert other == await engine.read(b"other")


def test_messages_to_the_child_process() -> None:
    pipe = io.BytesIO()
    write_message(pipe, b"\x00" * 70_000)
    write_message(pipe, {"ok": [["文字", 1, 2]]})
    pipe.seek(0)
    assert read_message(pipe) == b"\x00" * 70_000
    assert read_message(pipe) == {"ok": [["文字", 1, 2]]}
    assert read_message(pipe) is None
    assert read_message(io.BytesIO(b"\x00\x00\x00\x09half")) is None
    with pytest.raises(ValueError, match="bytes"):
        read_message(io.BytesIO(b"\xff\xff\xff\xff"))


@pytest.mark.parametrize(
    ("file", "size"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR\x00\x00\x01\x40\x00\x00\x00\xc8", ("png", (320, 200))),
        (b"\xff\xd8\xff\xe0\x00\x04ab\xff\xff\xc2\x00\x0b\x08\x00\xc8\x01\x40\x03", ("jpg", (320, 200))),
        (b"\xff\xd8\xff\xd9", None),
        (b"\xff\xd8\xff\xe0\xff\xff", None),
        (b"BM", None),
        (b"", None),
    ],
)
def test_picture_size(file: bytes, size: object) -> None:
    assert picture_size(file) == size
