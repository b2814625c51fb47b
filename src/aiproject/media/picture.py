"""Converts an uploaded picture for text recognition: jpg, png or bmp, upright, at most 4 MiB of Base64.

Source of the limits: iFlytek, 《通用文字识别 intsig API 文档》: jpg, jpeg, png, bmp; Base64 of at most 4 MB. No limit
on pixels is documented; ours bounds the memory that one upload can occupy.

A picture that fits and is upright passes through byte by byte, because encoding a JPEG again reduces its sharpness, on
which recognition depends. It is still decoded once to its end: a truncated picture would be charged in full and read
in part. Truncated files are therefore refused, JPEG included, even if viewers display their upper half.
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
"""The largest upload in bytes: more than a photograph from any phone."""
MAX_PIXELS: Final = 50_000_000
"""The largest number of pixels: 200 MB once decoded with transparency."""
MAX_BASE64: Final = 4 * 1024 * 1024
"""The largest number of Base64 characters that the platform accepts."""

Encoding = Literal["jpg", "png", "bmp"]

_MAX_ENCODED: Final = MAX_BASE64 // 4 * 3

# libjpeg decodes a progressive JPEG once for each scan, and a scan can take five bytes: a small file could otherwise
# occupy a core for minutes. Real encoders write about ten.
_MAX_SCANS: Final = 100
# The format's limit for one side of a JPEG.
_MAX_JPEG_SIDE: Final = 65500
# Below 75, artefacts at block borders reach thin strokes; from there on, reducing the pixels does less harm.
_QUALITIES: Final = (92, 85, 75)

_ORIENTATION_TAG: Final = 0x0112
# EXIF 2.32, "Orientation": the transformation that turns the stored picture upright.
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# The exceptions that Pillow raises on damaged files, according to its sources and our fuzzing. A warning (for example
# about a broken animation chunk) is only raised where warnings are errors.
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
    """A picture in the form that text recognition accepts.

    Attributes:
        data: the encoded picture; its Base64 has at most `MAX_BASE64` characters.
        encoding: the platform's name of the format.
        width: in pixels, upright.
        height: in pixels, upright.
    """

    data: bytes = field(repr=False)
    encoding: Encoding
    width: int
    height: int


def prepare_picture(data: bytes) -> Picture:
    """Validate an uploaded picture and convert it if necessary. Blocks for up to a few seconds: call it in a thread.

    The format is recognised by content, not by name. A picture with an EXIF orientation is turned upright. One that is
    too large is encoded with lower quality and then with fewer pixels. Both become JPEG without metadata (EXIF with its
    location, colour profile, comments), transparency on white. Any other picture passes through unchanged.

    Uses up to ten bytes per pixel while it works, 500 MB at `MAX_PIXELS`: bound how many run at once.

    Raises:
        FileMissing: ``data`` is empty.
        BodyTooLarge: more than `MAX_BYTES`; nothing was decoded.
        UnusableFile: another format, damaged or truncated, or more than `MAX_PIXELS`. The detail says which.
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
            # A JPEG decoded at an eighth of its size is still read to its last byte, with a fraction of the memory.
            picture.draft(None, (max(1, width // 8), max(1, height // 8)))
            picture.load()
            return Picture(bytes(data), encoding, width, height)
        picture.load()
        flat = _flatten(picture)
        # Each picture can have 200 MB: release it as soon as it is no longer needed.
        del picture
        if turn is not None:
            flat = flat.transpose(turn)
        return _encode(flat)
    except _DECODER_ERRORS as error:
        raise UnusableFile(Detail.PICTURE_DAMAGED) from error


class _JpegFile(JpegImageFile):
    """A JPEG whose EXIF block is ignored: Pillow reads a resolution from it, and warns if the block is damaged."""

    def getexif(self) -> Image.Exif:
        return Image.Exif()


def _open(data: bytes) -> tuple[ImageFile, Encoding]:
    """Read the header only.

    The format's class is called directly, because `Image.open` would warn about large pictures, which have a limit of
    their own here, and would process the further pictures of a phone's MPO file.
    """
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
    """Return the orientation in an EXIF block, 1 if there is none. Damaged metadata does not make a picture unusable.

    Source: EXIF 2.32 and TIFF 6.0, image file directory: 12 bytes per entry. Parsed here instead of by Pillow, which
    writes warnings about damaged blocks to the server's standard error stream.
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
                # SHORT by the standard; some writers use LONG.
                return int(struct.unpack_from(order + ("I" if kind == 4 else "H"), tiff, at + 8)[0])
    except struct.error:
        return 1
    return 1


def _flatten(picture: Image.Image) -> Image.Image:
    """Convert to grey or RGB of 8 bits, with transparency on white and without metadata."""
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
    # Pillow copies comments to a new JPEG.
    flat.info = {}
    return flat


def _encode(flat: Image.Image) -> Picture:
    """Encode a JPEG that fits: the best quality first, then lower ones, then fewer pixels."""
    max_side = max(flat.size)
    if max_side > _MAX_JPEG_SIDE:
        flat = _scaled(flat, _MAX_JPEG_SIDE / max_side)
    for quality in _QUALITIES:
        encoded = _jpeg(flat, quality)
        if len(encoded) <= _MAX_ENCODED:
            return Picture(encoded, "jpg", *flat.size)
    while len(encoded) > _MAX_ENCODED:
        # The size grows about with the area; aiming a little lower makes one step sufficient in most cases.
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
