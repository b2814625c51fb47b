"""Make an uploaded picture fit for text recognition: jpg, png or bmp, upright, at most 4 MiB of Base64.

Source of the limits: iFlytek, 《通用文字识别 intsig API 文档》: jpg, jpeg, png, bmp; Base64 of at most 4 MB. No limit
on pixels is documented; ours bounds the memory that one upload can claim.

A picture that fits and stands upright is passed on byte by byte: each new JPEG costs sharpness, and sharpness is what
recognition lives on. It is still decoded once to its end, because a picture that is cut short would be charged in full
and read in part; so truncated files are refused, JPEG included, even if viewers show their upper half.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from aiproject.codes import Detail
from aiproject.errors import BodyTooLarge, FileMissing, UnusableFile
from aiproject.media._signatures import recognise

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

__all__ = ["MAX_BYTES", "MAX_PIXELS", "Picture", "prepare_picture"]

MAX_BYTES: Final = 16 * 1024 * 1024
"""Largest upload, in bytes: a photograph of any telephone, with room to spare."""
MAX_PIXELS: Final = 50_000_000
"""Most pixels: 200 MB once decoded with transparency."""
MAX_BASE64: Final = 4 * 1024 * 1024
"""Most Base64 characters that the platform takes."""

Encoding = Literal["jpg", "png", "bmp"]

_MAX_ENCODED: Final = MAX_BASE64 // 4 * 3

# libjpeg decodes a progressive JPEG once for each scan, and a scan can cost five bytes: a small file would otherwise
# hold a core for minutes. Real encoders write about ten.
_MAX_SCANS: Final = 100
# What one side of a JPEG can measure.
_MAX_JPEG_SIDE: Final = 65500
# Below 75 the blocks begin to touch thin strokes; fewer pixels harm less from there on.
_QUALITIES: Final = (92, 85, 75)

_ORIENTATION_TAG: Final = 0x0112
# EXIF 2.32, "Orientation": what turns the stored picture upright.
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow raises on damaged files, as its sources and our fuzzing show. A warning (for example about a broken
# animation chunk) is only raised where warnings are errors.
_DECODER_ERRORS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
    UserWarning,
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as text recognition takes it.

    Attributes:
        data: the encoded picture; its Base64 has at most `MAX_BASE64` characters.
        encoding: the platform's name of the format.
        width: pixels, upright.
        height: pixels, upright.
    """

    data: bytes = field(repr=False)
    encoding: Encoding
    width: int
    height: int


def prepare_picture(data: bytes) -> Picture:
    """Check an uploaded picture and make it fit. Blocks for up to a few seconds: call it in a thread.

    Recognised by content, not by name. A picture turned by its EXIF orientation is turned upright, one that is too
    large is written with lower quality and then with fewer pixels; both become JPEG without metadata (EXIF and its
    place, colour profile, comments), transparency on white. Any other passes through unchanged.

    Takes up to ten bytes a pixel while it works, 500 MB at `MAX_PIXELS`: bound how many run at once.

    Raises:
        FileMissing: ``data`` is empty.
        BodyTooLarge: more than `MAX_BYTES`; nothing was decoded.
        UnusableFile: another format, damaged or cut short, or more than `MAX_PIXELS`. The detail says which.
    """
    if not data:
        raise FileMissing(Detail.PICTURE_EMPTY)
    if len(data) > MAX_BYTES:
        raise BodyTooLarge(MAX_BYTES)
    try:
        picture, encoding = _open(data)
        _check_size(picture)
        turn = _UPRIGHT.get(_orientation(picture.info.get("exif") or b""))
        if turn is None and len(data) <= _MAX_ENCODED:
            width, height = picture.size
            # A JPEG at an eighth of its size is still read to its last byte, with a fraction of the memory.
            picture.draft(None, (max(1, width // 8), max(1, height // 8)))
            picture.load()
            return Picture(bytes(data), encoding, width, height)
        picture.load()
        flat = _flatten(picture)
        # Each of them can be 200 MB: let go of what is no longer needed.
        del picture
        if turn is not None:
            flat = flat.transpose(turn)
        return _encode(flat)
    except _DECODER_ERRORS as error:
        raise UnusableFile(Detail.PICTURE_DAMAGED) from error


class _JpegFile(JpegImageFile):
    """A JPEG whose EXIF block stays closed: Pillow looks there for a resolution, and warns if the block is damaged."""

    def getexif(self) -> Image.Exif:
        return Image.Exif()


def _open(data: bytes) -> tuple[ImageFile, Encoding]:
    """Read the header only. The format's class is called directly: `Image.open` would warn about large pictures, which
    have their own rule here, and would take the further pictures of a telephone's MPO file into account."""
    stream = io.BytesIO(data)
    if data.startswith(b"\xff\xd8\xff"):
        if data.count(b"\xff\xda") > _MAX_SCANS:
            raise UnusableFile(Detail.PICTURE_DAMAGED)
        return _JpegFile(stream), "jpg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile(stream), "png"
    if data.startswith(b"BM"):
        return BmpImageFile(stream), "bmp"
    name = recognise(data)
    if name is None:
        raise UnusableFile(Detail.PICTURE_WANTED)
    raise UnusableFile(Detail.PICTURE_OF_OTHER_KIND, kind=name)


def _check_size(picture: ImageFile) -> None:
    width, height = picture.size
    if width < 1 or height < 1:
        raise UnusableFile(Detail.PICTURE_DAMAGED)
    if width * height > MAX_PIXELS:
        raise UnusableFile(Detail.PICTURE_TOO_MANY_PIXELS, width=width, height=height, limit=MAX_PIXELS // 10_000)


def _orientation(exif: bytes) -> int:
    """The orientation of an EXIF block, 1 if it says none. Damaged metadata is no reason to refuse a picture.

    Source: EXIF 2.32 and TIFF 6.0, image file directory: 12 bytes an entry. Read here and not by Pillow, which warns
    about damaged blocks on the standard error stream of the server.
    """
    tiff = exif.removeprefix(b"Exif\x00\x00")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for at in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind = struct.unpack_from(order + "HH", tiff, at)
            if tag == _ORIENTATION_TAG:
                # SHORT by the standard; some writers say LONG.
                return int(struct.unpack_from(order + ("I" if kind == 4 else "H"), tiff, at + 8)[0])
    except struct.error:
        return 1
    return 1


def _flatten(picture: Image.Image) -> Image.Image:
    """Grey or RGB of 8 bits, with what is transparent on white paper, without metadata."""
    flat = picture
    if picture.mode in {"I", "I;16", "I;16B", "I;16L"}:
        # 16-bit grey: Pillow's own conversion clips at 255 instead of scaling.
        flat = Image.fromarray((np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8))
    elif picture.has_transparency_data:
        layer = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        flat = Image.new("RGB", layer.size, "white")
        flat.paste(layer, mask=layer.getchannel("A"))
    elif picture.mode not in {"L", "RGB"}:
        flat = picture.convert("L" if picture.mode == "1" else "RGB")
    # Pillow carries comments over into a new JPEG.
    flat.info = {}
    return flat


def _encode(flat: Image.Image) -> Picture:
    """Write a JPEG that fits: the best quality first, then lower, then fewer pixels."""
    max_side = max(flat.size)
    if max_side > _MAX_JPEG_SIDE:
        flat = _scaled(flat, _MAX_JPEG_SIDE / max_side)
    for quality in _QUALITIES:
        encoded = _jpeg(flat, quality)
        if len(encoded) <= _MAX_ENCODED:
            return Picture(encoded, "jpg", *flat.size)
    while len(encoded) > _MAX_ENCODED:
        # Bytes grow about with the area; a little less than that, so that one step is mostly enough.
        flat = _scaled(flat, min(0.9, 0.95 * math.sqrt(_MAX_ENCODED / len(encoded))))
        encoded = _jpeg(flat, _QUALITIES[-1])
    return Picture(encoded, "jpg", *flat.size)


def _scaled(flat: Image.Image, factor: float) -> Image.Image:
    width, height = (max(1, int(side * factor)) for side in flat.size)
    return flat.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _jpeg(flat: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    flat.save(out, "JPEG", quality=quality)
    return out.getvalue()
