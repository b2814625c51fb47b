"""Pictures are recognised by content, turned upright, and brought under the platform's limit; nothing else changes."""

from __future__ import annotations

import base64
import contextlib
import io
import random
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from aiproject.errors import BodyTooLarge, FileMissing, UnusableFile
from aiproject.media.picture import MAX_BASE64, MAX_BYTES, prepare_picture
from aiproject.messages.formatting import Language, format_error

ORIENTATION, MAKER = 0x0112, 0x010F


def noise(width: int, height: int, *, seed: int = 1) -> Image.Image:
    """What no encoder can make small."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def page(width: int = 60, height: int = 40) -> Image.Image:
    """White with a black corner at the upper left, so that turning shows."""
    picture = Image.new("RGB", (width, height), "white")
    picture.paste((0, 0, 0), (0, 0, 20, 20))
    return picture


def encode(picture: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[MAKER] = "a telephone"
    block[ORIENTATION] = orientation
    return block.tobytes()


def decode(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def brightness(data: bytes, x: int, y: int) -> int:
    return int(np.asarray(decode(data).convert("L"))[y, x])


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


class TestPassThrough:
    @pytest.mark.parametrize(
        ("form", "options", "encoding"),
        [
            ("JPEG", {}, "jpg"),
            ("JPEG", {"progressive": True, "exif": exif(1)}, "jpg"),
            ("PNG", {}, "png"),
            ("BMP", {}, "bmp"),
        ],
    )
    def test_a_picture_that_fits_is_not_touched(self, form: str, options: dict[str, Any], encoding: str) -> None:
        data = encode(page(), form, **options)
        picture = prepare_picture(data)
        assert (picture.data, picture.encoding, picture.width, picture.height) == (data, encoding, 60, 40)

    @pytest.mark.parametrize("mode", ["CMYK", "L"])
    def test_other_colour_modes_of_jpeg(self, mode: str) -> None:
        data = encode(page().convert(mode), "JPEG")
        assert prepare_picture(data).data == data

    def test_a_picture_of_one_pixel(self) -> None:
        assert prepare_picture(encode(page(1, 1), "JPEG")).width == 1

    def test_the_picture_is_not_in_its_repr(self) -> None:
        assert "data" not in repr(prepare_picture(encode(page(), "PNG")))


class TestOrientation:
    @pytest.mark.parametrize(
        ("orientation", "size", "black"),
        [
            (2, (60, 40), (50, 10)),
            (3, (60, 40), (50, 30)),
            (4, (60, 40), (10, 30)),
            (5, (40, 60), (10, 10)),
            (6, (40, 60), (30, 10)),
            (7, (40, 60), (30, 50)),
            (8, (40, 60), (10, 50)),
        ],
    )
    def test_a_turned_picture_is_set_upright(
        self, orientation: int, size: tuple[int, int], black: tuple[int, int]
    ) -> None:
        picture = prepare_picture(encode(page(), "JPEG", exif=exif(orientation), comment=b"at home"))
        assert (picture.width, picture.height) == size == decode(picture.data).size
        assert brightness(picture.data, *black) < 30
        corners = [(5, 5), (size[0] - 6, 5), (5, size[1] - 6), (size[0] - 6, size[1] - 6)]
        assert sum(brightness(picture.data, *corner) < 30 for corner in corners) == 1

    @pytest.mark.parametrize(("orientation", "rest"), [(6, 0), (1, MAX_BASE64)])
    def test_metadata_is_gone_after_turning_or_shrinking(self, orientation: int, rest: int) -> None:
        data = encode(page(), "JPEG", exif=exif(orientation), comment=b"at home", icc_profile=b"profile" * 30)
        data += bytes(rest)
        after = prepare_picture(data).data
        for secret in (b"Exif", b"a telephone", b"at home", b"profile"):
            assert secret in data
            assert secret not in after

    def test_png_has_an_orientation_too(self) -> None:
        picture = prepare_picture(encode(page(), "PNG", exif=exif(6)))
        assert (picture.encoding, picture.width, picture.height) == ("jpg", 40, 60)

    @given(st.binary(max_size=40))
    def test_damaged_metadata_does_not_matter(self, block: bytes) -> None:
        tiff = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08" + block
        data = encode(page(), "JPEG")
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(tiff) + 2) + tiff + data[2:]
        assert prepare_picture(data).encoding == "jpg"


class TestShrinking:
    @pytest.mark.parametrize("form", ["PNG", "BMP"])
    def test_a_large_picture_becomes_a_jpeg_that_fits(self, form: str) -> None:
        picture = prepare_picture(encode(noise(1300, 1000), form))
        assert picture.encoding == "jpg"
        assert (picture.width, picture.height) == (1300, 1000)
        assert len(base64.b64encode(picture.data)) <= MAX_BASE64

    def test_pixels_are_given_up_last(self) -> None:
        data = encode(noise(3900, 3000), "JPEG", quality=95)
        picture = prepare_picture(data)
        assert len(base64.b64encode(picture.data)) <= MAX_BASE64
        assert len(picture.data) > MAX_BASE64 // 4 * 3 // 2
        assert picture.width < 3900
        assert abs(picture.width / picture.height - 1.3) < 0.01
        assert decode(picture.data).size == (picture.width, picture.height)

    def test_the_limit_is_met_to_the_byte(self) -> None:
        data = encode(page(), "JPEG")
        fits = data + bytes(MAX_BASE64 // 4 * 3 - len(data))
        assert prepare_picture(fits).data == fits
        assert len(prepare_picture(fits + b"\x00").data) < 10_000

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
    def test_what_is_transparent_is_white(self, mode: str) -> None:
        # Transparent black: dropping the alpha channel would leave black on black.
        picture = Image.new("RGBA", (60, 40), (0, 0, 0, 0))
        picture.paste((0, 0, 0, 255), (0, 0, 20, 20))
        data = encode(picture.convert(mode), "PNG", exif=exif(1)) + bytes(MAX_BASE64)
        after = prepare_picture(data).data
        assert brightness(after, 10, 10) < 30
        assert brightness(after, 50, 30) > 225

    def test_grey_of_16_bits_is_scaled_and_not_clipped(self) -> None:
        ramp = np.linspace(0, 65535, 100 * 64).astype(np.uint16).reshape(100, 64)
        after = prepare_picture(encode(Image.fromarray(ramp), "PNG") + bytes(MAX_BASE64)).data
        assert 110 < brightness(after, 32, 50) < 145

    @pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "L"])
    def test_other_colour_modes_become_rgb_or_grey(self, mode: str) -> None:
        after = prepare_picture(encode(page().convert(mode), "JPEG", exif=exif(3))).data
        assert decode(after).mode in {"RGB", "L"}
        assert brightness(after, 50, 30) < 30
        assert brightness(after, 5, 5) > 225

    def test_bilevel_and_palette(self) -> None:
        for mode in ("1", "P"):
            after = prepare_picture(encode(page().convert(mode), "PNG") + bytes(MAX_BASE64)).data
            assert brightness(after, 10, 10) < 30
            assert brightness(after, 50, 30) > 225

    def test_a_strip_longer_than_a_jpeg_can_be(self) -> None:
        picture = prepare_picture(encode(Image.new("L", (70_000, 40)), "PNG") + bytes(MAX_BASE64))
        assert picture.width <= 65_500


class TestRefusals:
    def test_no_bytes(self) -> None:
        with pytest.raises(FileMissing):
            prepare_picture(b"")

    def test_too_many_bytes(self) -> None:
        with pytest.raises(BodyTooLarge) as refusal:
            prepare_picture(bytes(MAX_BYTES + 1))
        assert refusal.value.limit == MAX_BYTES

    def test_too_many_pixels_are_told_from_the_header(self) -> None:
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 5_001, 8, 2, 0, 0, 0))
        with pytest.raises(UnusableFile, match="PICTURE_TOO_MANY_PIXELS"):
            prepare_picture(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))

    def test_a_bomb_of_scans(self) -> None:
        data = encode(page(), "JPEG", progressive=True)
        with pytest.raises(UnusableFile):
            prepare_picture(data + b"\xff\xda" * 100)

    @pytest.mark.parametrize(
        ("data", "name"),
        [
            (encode(page(), "GIF"), "GIF"),
            (encode(page(), "TIFF"), "TIFF"),
            (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "WebP"),
            (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "HEIC"),
            (b"%PDF-1.7\n", "PDF"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
            (b"not a picture, only some text that somebody sent", "文本"),
            (b"\x00\x01\x02\x03", "请上传"),
        ],
    )
    def test_other_formats_are_named(self, data: bytes, name: str) -> None:
        with pytest.raises(UnusableFile) as refusal:
            prepare_picture(data)
        assert name in format_error(refusal.value, Language.ZH)
        assert "JPG、PNG 或 BMP" in format_error(refusal.value, Language.ZH)

    @pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP"])
    @pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
    def test_a_picture_cut_short_is_refused(self, form: str, part: float) -> None:
        data = encode(noise(100, 80), form)
        with pytest.raises(UnusableFile):
            prepare_picture(data[: max(4, int(len(data) * part))])

    @settings(max_examples=150)
    @given(st.sampled_from(["JPEG", "PNG", "BMP"]), st.integers(0, 2**32), st.integers(1, 8))
    def test_any_damage_ends_in_a_picture_or_a_refusal(self, form: str, seed: int, flips: int) -> None:
        data = bytearray(encode(noise(16, 16), form))
        source = random.Random(seed)
        for _ in range(flips):
            data[source.randrange(len(data))] = source.randrange(256)
        with contextlib.suppress(UnusableFile):
            assert prepare_picture(bytes(data)).width
