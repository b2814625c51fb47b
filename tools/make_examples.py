"""Make the example media under ``examples/``: a receipt to read and two sentences to hear.

    .venv/bin/python tools/make_examples.py [--check]

Needed are espeak-ng (``apt-get install espeak-ng``) and a Chinese font (``apt-get install fonts-noto-cjk``); what is
missing is said. ``--check`` then lets the sandbox's engines (the extra ``local``) read and hear the result, and fails
unless they get every word. The sentences and voices were chosen for that: a synthetic voice and PocketSphinx's small
model agree on few sentences, and on these still with noise added or the beginning shifted.
"""

from __future__ import annotations

import argparse
import io
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from aiproject.media.audio import Pcm, prepare_audio

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

# Name, sentence, espeak-ng's voice and its speed in words a minute.
SENTENCES = (
    ("hello", "hello nice to meet you", "en-us+f2", 130),
    ("monday", "the president will speak in new york on monday", "en-us+f2", 145),
)

# The shop is invented. Size in pixels, then the line.
RECEIPT = (
    (64, "青石书店"),
    (40, "Bluestone Books"),
    (36, "日期：2025年3月8日"),
    (36, "单号：000482"),
    (40, "笔记本 Notebook 36.00"),
    (40, "钢笔 Fountain Pen 58.00"),
    (40, "明信片 Postcard 12.50"),
    (52, "合计 Total 106.50"),
    (36, "谢谢惠顾，欢迎再来！"),
    (36, "Thank you, see you soon!"),
)
WIDTH, MARGIN, GAP = 1000, 90, 38

FONTS = (
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/noto-cjk/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/google-noto-cjk/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/google-noto-sans-cjk-fonts/NotoSansCJK-Regular.ttc",
    "/System/Library/Fonts/PingFang.ttc",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="let the sandbox's engines read and hear the result")
    arguments = parser.parse_args()
    font = next((path for path in FONTS if Path(path).is_file()), None)
    missing = [] if font else ["a Chinese font: apt-get install fonts-noto-cjk"]
    if shutil.which("espeak-ng") is None:
        missing.append("espeak-ng: apt-get install espeak-ng")
    if font is None or missing:
        print("missing:", *missing, sep="\n  ", file=sys.stderr)
        return 1
    EXAMPLES.mkdir(exist_ok=True)
    write("receipt.jpg", draw_receipt(font))
    for name, sentence, voice, speed in SENTENCES:
        sound = speak(sentence, voice, speed)
        write(f"{name}.wav", wav(sound))
        if name == "hello":
            write(f"{name}.pcm", sound.samples)
    return check() if arguments.check else 0


def write(name: str, data: bytes) -> None:
    (EXAMPLES / name).write_bytes(data)
    print(f"examples/{name}: {len(data)} bytes")


def draw_receipt(font: str) -> bytes:
    height = 2 * MARGIN + sum(size + GAP for size, _ in RECEIPT) - GAP
    paper = Image.new("RGB", (WIDTH, height), (250, 249, 245))
    pen = ImageDraw.Draw(paper)
    y = MARGIN
    for size, line in RECEIPT:
        # Index 2 of the collection is the simplified Chinese face; a collection of one face has only index 0.
        face = ImageFont.truetype(font, size, index=2 if "Noto" in font else 0)
        pen.text((WIDTH // 2, y + size // 2), line, font=face, fill=(35, 35, 40), anchor="mm")
        y += size + GAP
    out = io.BytesIO()
    paper.save(out, "JPEG", quality=88)
    return out.getvalue()


def speak(sentence: str, voice: str, speed: int) -> Pcm:
    spoken = subprocess.run(
        ["espeak-ng", "-v", voice, "-s", str(speed), "--stdout", sentence], check=True, capture_output=True
    )
    # espeak-ng speaks at 22050 Hz and leaves the sizes in its WAV header open.
    return prepare_audio(spoken.stdout)


def wav(sound: Pcm) -> bytes:
    layout = struct.pack("<HHIIHH", 1, 1, sound.sample_rate, sound.sample_rate * 2, 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", len(layout)) + layout
    body += b"data" + struct.pack("<I", len(sound.samples)) + sound.samples
    return b"RIFF" + struct.pack("<I", len(body)) + body


def check() -> int:
    failures = 0
    for name, sentence, _, _ in SENTENCES:
        failures += compare(f"{name}.wav", [sentence], [transcribe((EXAMPLES / f"{name}.wav").read_bytes())])
    failures += compare("receipt.jpg", [line for _, line in RECEIPT], read((EXAMPLES / "receipt.jpg").read_bytes()))
    return min(failures, 1)


def compare(name: str, expected: list[str], found: list[str]) -> int:
    if found == expected:
        print(f"{name}: every word right")
        return 0
    print(f"{name}: expected {expected}, found {found}", file=sys.stderr)
    return 1


def transcribe(data: bytes) -> str:
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=16000, loglevel="FATAL")
    decoder.start_utt()
    decoder.process_raw(prepare_audio(data).samples, no_search=False, full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return str(hypothesis.hypstr) if hypothesis else ""


def read(data: bytes) -> list[str]:
    import rapidocr

    models = Path(rapidocr.__file__).parent / "models"
    # Spelt out, so that it reads with the models of its own package and looks for no others on the network.
    engine = rapidocr.RapidOCR(
        params={
            "Global.log_level": "error",
            "Det.model_path": str(models / "PP-OCRv6_det_small.onnx"),
            "Rec.model_path": str(models / "PP-OCRv6_rec_small.onnx"),
            "Cls.model_path": str(models / "ch_ppocr_mobile_v2.0_cls_mobile.onnx"),
        }
    )
    result: Any = engine(data)
    return [str(text) for text in result.txts or ()]


if __name__ == "__main__":
    sys.exit(main())
