"""Uploads are read the same however the network cuts them, and never beyond their limit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import MutableMapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject.adapters.http import bodies as uploads
from aiproject.adapters.http.bodies import ClientGone, header_candidates, read_body, read_upload
from aiproject.errors import BodyTooLarge, FileMissing

BOUNDARY = b"----------------------------0123456789"
FORM = (b"content-type", b"multipart/form-data; boundary=" + BOUNDARY)
MIB = 1024 * 1024


class Wire:
    """An ASGI channel that delivers the given pieces and counts what was taken."""

    def __init__(self, pieces: Sequence[bytes], *, is_cut: bool = False) -> None:
        self.pieces = list(pieces) or [b""]
        self.taken = 0
        self.is_cut = is_cut

    async def __call__(self) -> MutableMapping[str, Any]:
        if self.taken == len(self.pieces):
            if self.is_cut:
                return {"type": "http.disconnect"}
            raise AssertionError("asked for more than the whole body")
        self.taken += 1
        more = self.is_cut or self.taken < len(self.pieces)
        return {"type": "http.request", "body": self.pieces[self.taken - 1], "more_body": more}


def part(disposition: bytes, content: bytes, *, extra: bytes = b"") -> bytes:
    return b"--" + BOUNDARY + b"\r\nContent-Disposition: " + disposition + b"\r\n" + extra + b"\r\n" + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"


def file_part(content: bytes) -> bytes:
    return part('form-data; name="file"; filename="图片.jpg"'.encode(), content)


def cuts(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """All ways to cut ``data``, with empty messages in between as chunked clients cause them."""
    points = st.lists(st.integers(0, len(data)), max_size=12).map(sorted)
    return points.map(lambda at: [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)])


async def read_form(*parts: bytes, limit: int = MIB) -> bytes:
    return await read_upload(Wire([form(*parts)]), [FORM], limit=limit)


class TestReadBody:
    @given(st.binary(max_size=300).flatmap(lambda data: st.tuples(st.just(data), cuts(data))))
    async def test_pieces_are_joined(self, case: tuple[bytes, list[bytes]]) -> None:
        data, pieces = case
        assert await read_body(Wire(pieces), [], limit=300) == data

    async def test_the_limit_itself_is_accepted(self) -> None:
        assert len(await read_body(Wire([b"x" * 10]), [(b"content-length", b"10")], limit=10)) == 10

    async def test_one_byte_more_is_refused_and_the_rest_is_read(self) -> None:
        wire = Wire([b"x" * 10, b"x", b"y" * 100, b""])
        with pytest.raises(BodyTooLarge) as refusal:
            await read_body(wire, [], limit=10)
        assert refusal.value.limit == 10
        assert wire.taken == 4

    @pytest.mark.parametrize("length", [b"11", b"9" * 30, b"9" * 5000])
    async def test_a_declared_length_is_refused_and_the_body_is_read(self, length: bytes) -> None:
        wire = Wire([b"x", b"y"])
        with pytest.raises(BodyTooLarge):
            await read_body(wire, [(b"content-length", length)], limit=10)
        assert wire.taken == 2

    async def test_a_client_that_waits_for_leave_is_not_asked_to_send(self) -> None:
        wire = Wire([b"x"])
        with pytest.raises(BodyTooLarge):
            await read_body(wire, [(b"content-length", b"11"), (b"expect", b"100-Continue")], limit=10)
        assert wire.taken == 0

    async def test_what_is_thrown_away_is_bounded_in_bytes(self) -> None:
        wire = Wire([bytes(16 * MIB)] * 8)
        with pytest.raises(BodyTooLarge):
            await read_body(wire, [], limit=10)
        assert wire.taken == 5

    async def test_what_is_thrown_away_is_bounded_in_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(uploads, "_DISCARD_SECONDS", 0.01)
        stalled = asyncio.Event()

        async def receive() -> MutableMapping[str, Any]:
            if stalled.is_set():
                await asyncio.Event().wait()
            stalled.set()
            return {"type": "http.request", "body": b"x" * 11, "more_body": True}

        with pytest.raises(BodyTooLarge):
            await asyncio.wait_for(read_body(receive, [], limit=10), 5)

    async def test_a_client_that_hangs_up_is_told_apart(self) -> None:
        with pytest.raises(ClientGone):
            await read_body(Wire([b"x"], is_cut=True), [], limit=10)


class TestRawUpload:
    @pytest.mark.parametrize(
        "content_type",
        [None, b"application/octet-stream", b"application/x-www-form-urlencoded", b"image/jpeg", b"", b";;=", b"\xff"],
    )
    async def test_any_content_type_is_the_file_itself(self, content_type: bytes | None) -> None:
        headers = [] if content_type is None else [(b"content-type", content_type)]
        assert await read_upload(Wire([b"a=1&", b"", b"b=2"]), headers, limit=10) == b"a=1&b=2"

    async def test_no_bytes_are_no_file(self) -> None:
        with pytest.raises(FileMissing):
            await read_upload(Wire([]), [], limit=10)


class TestFormUpload:
    @given(
        # Contents that resemble the boundary are the hard ones.
        st.lists(
            st.sampled_from([b"\r", b"\n", b"-", b"\r\n--", BOUNDARY, BOUNDARY[:20], b"x"]), min_size=1, max_size=8
        )
        .map(b"".join)
        .filter(lambda content: b"\r\n--" + BOUNDARY not in b"\r\n" + content)
        .flatmap(lambda content: st.tuples(st.just(content), cuts(form(file_part(content)))))
    )
    async def test_the_field_file_is_found_however_it_is_cut(self, case: tuple[bytes, list[bytes]]) -> None:
        content, pieces = case
        assert await read_upload(Wire(pieces), [FORM], limit=MIB) == content

    async def test_byte_by_byte(self) -> None:
        content = bytes(range(256)) + b"\r\n--" + BOUNDARY[:-1] + b"!\r\n"
        body = form(part(b'form-data; name="uuid"', b"abc"), file_part(content))
        pieces = [body[at : at + 1] for at in range(len(body))]
        assert await read_upload(Wire(pieces), [FORM], limit=MIB) == content

    @pytest.mark.parametrize(
        "disposition",
        [
            b'form-data; name="file"; filename="20240928120000.pcm"',
            b'form-data; name="file"',
            b"form-data; name=file; filename=a.jpg",
            b'FORM-DATA; filename="a;b.jpg"; name="file"',
            b"form-data; name=\"file\"; filename*=UTF-8''%E5%9B%BE%E7%89%87.jpg",
            b'form-data; name="file"\r\nX-Other: 1\r\nContent-Type: image/jpeg',
        ],
    )
    async def test_part_headers_as_clients_write_them(self, disposition: bytes) -> None:
        assert await read_form(part(disposition, b"picture")) == b"picture"

    async def test_odd_parts_beside_the_file_are_ignored(self) -> None:
        odd = [part('表单; name="file"'.encode(), b"?"), part(b"", b"?"), part(b'form-data; name*="file"', b"?")]
        assert await read_form(*odd, file_part(b"picture")) == b"picture"

    async def test_a_quoted_boundary_and_odd_case(self) -> None:
        headers = [(b"content-type", b'Multipart/Form-Data; charset=utf-8; Boundary="' + BOUNDARY + b'"')]
        assert await read_upload(Wire([form(file_part(b"abc"))]), headers, limit=10) == b"abc"

    async def test_the_first_of_two_files_counts(self) -> None:
        assert await read_form(part(b'form-data; name="a"', b"?"), file_part(b"one"), file_part(b"two")) == b"one"

    async def test_the_limit_is_the_files_and_not_the_forms(self) -> None:
        assert len(await read_form(file_part(b"x" * 100), limit=100)) == 100
        with pytest.raises(BodyTooLarge) as refusal:
            await read_form(file_part(b"x" * 101), limit=100)
        assert refusal.value.limit == 100

    async def test_the_form_around_the_file_is_bounded(self) -> None:
        other = part(b'form-data; name="other"', b"x" * 70_000)
        with pytest.raises(BodyTooLarge):
            await read_form(other, file_part(b"abc"), limit=100)
        with pytest.raises(BodyTooLarge):
            await read_upload(Wire([b"-"]), [FORM, (b"content-length", b"99999")], limit=100)

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"not a form at all",
            form(),
            form(part(b'form-data; name="other"', b"abc")),
            form(part(b'attachment; name="file"', b"abc")),
            form(file_part(b"")),
            form(file_part(b"abc"))[:-6],
            file_part(b"abc"),
            form(part(b'form-data; name="file"', b"abc", extra=b"no colon\r\n")),
            form(part(b'form-data; name="file"', b"abc", extra=b"X-Long: " + b"x" * 9000 + b"\r\n")),
            form(*[part(b'form-data; name="a"', b"")] * 70, file_part(b"abc")),
        ],
    )
    async def test_a_form_without_a_whole_file_is_no_file(self, body: bytes) -> None:
        with pytest.raises(FileMissing) as refusal:
            await read_upload(Wire([body[:10], body[10:], b""]), [FORM], limit=MIB)
        assert refusal.value.detail

    async def test_an_empty_file_is_one_where_the_caller_says_so(self) -> None:
        body = form(file_part(b""))
        assert await read_upload(Wire([body]), [FORM], limit=MIB, may_be_empty=True) == b""
        for broken in (body[:-6], form(part(b'form-data; name="other"', b""))):
            with pytest.raises(FileMissing):
                await read_upload(Wire([broken]), [FORM], limit=MIB, may_be_empty=True)

    async def test_a_bare_body_without_bytes_is_no_file_in_any_case(self) -> None:
        with pytest.raises(FileMissing):
            await read_upload(Wire([]), [], limit=MIB, may_be_empty=True)

    @pytest.mark.parametrize("content_type", [b"multipart/form-data", b"multipart/form-data; boundary="])
    async def test_a_missing_boundary_is_said(self, content_type: bytes) -> None:
        with pytest.raises(FileMissing, match="FORM_WITHOUT_BOUNDARY"):
            await read_upload(Wire([form(file_part(b"abc"))]), [(b"content-type", content_type)], limit=MIB)

    async def test_a_boundary_beyond_reason_is_refused(self) -> None:
        with pytest.raises(FileMissing):
            await read_upload(Wire([b"x"]), [(b"content-type", FORM[1] + b"x" * 5000)], limit=MIB)

    async def test_the_rest_of_a_refused_form_is_read(self) -> None:
        wire = Wire([b"nonsense", b"more", b"end"])
        with pytest.raises(FileMissing):
            await read_upload(wire, [FORM], limit=MIB)
        assert wire.taken == 3

    @given(st.binary(max_size=60), st.binary(max_size=60))
    async def test_any_bytes_end_in_a_file_or_a_refusal(self, content_type: bytes, body: bytes) -> None:
        headers = [(b"content-type", b"multipart/form-data; boundary=b" + content_type)]
        with contextlib.suppress(FileMissing, BodyTooLarge):
            assert await read_upload(Wire([b"--b\r\n" + body]), headers, limit=20)


class TestHeaderCandidates:
    @pytest.mark.parametrize(
        ("value", "readings"),
        [
            (b"alice", ("alice",)),
            ("张三".encode(), ("张三",)),
            (b"%E5%BC%A0%E4%B8%89", ("%E5%BC%A0%E4%B8%89", "张三")),
            (b"100%25", ("100%25", "100%")),
            (b"100%", ("100%",)),
            (b"Jos\xe9", ("José",)),
            (b"%ff", ("%ff",)),
            (b"a%00b", ("a%00b",)),
            (b"  alice\t", ("alice",)),
            (b"   ", ()),
            (b"x" * 1025, ()),
        ],
    )
    def test_readings_in_order(self, value: bytes, readings: tuple[str, ...]) -> None:
        headers = [(b"other", b"bob"), (b"username", value), (b"username", b"second")]
        assert header_candidates(headers, b"username") == readings

    def test_an_absent_header_has_none(self) -> None:
        assert header_candidates([], b"username") == ()

    @given(st.text(st.characters(min_codepoint=33, blacklist_categories=("Cc", "Cs", "Zs", "Zl", "Zp")), min_size=1))
    def test_every_name_sent_as_utf8_is_among_the_readings(self, name: str) -> None:
        expected = (name,) if len(name.encode()) <= 1024 else ()
        assert header_candidates([(b"username", name.encode())], b"username")[:1] == expected
