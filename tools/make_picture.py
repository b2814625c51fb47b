"""Draw docs/assets/first-chat.svg: a terminal in which a server is started and asked its first question.

    .venv/bin/python tools/make_picture.py

The commands are those of README.md. They are run, and what they print is what is drawn. The server runs in an empty
folder on a free port, which the picture shows as 8080. Run it again when the banner or the answers change.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import unicodedata
import urllib.request
from collections.abc import Iterator
from html import escape
from itertools import groupby
from pathlib import Path

CLONE = Path(__file__).resolve().parents[1]
PICTURE = CLONE / "docs" / "assets" / "first-chat.svg"

CELL = 7.2
"""Width of a character in pixels; a Chinese one is two cells wide."""

LINE = 17
"""Height of a line in pixels."""

MARGIN = 18
BAR = 34
"""Height of the window's bar in pixels."""

COLUMNS = 118
"""Cells in a line; longer lines are wrapped, as a terminal does."""

TYPED, PRINTED = "#6bc46d", "#adbac7"

START_SECONDS = 30

MARK = "--8--"
"""Printed between the outputs of two commands."""


def blocks() -> list[str]:
    """Return the shell blocks of README.md up to the first chat."""
    return re.findall(r"^```sh\n(.*?)^```$", (CLONE / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)[:2]


def record() -> Iterator[str]:
    """Run the commands and yield the lines of the terminal."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {**os.environ, "AIPROJECT_PORT": port, "AIPROJECT_LOG_LEVEL": "warning", "LANG": "C.UTF-8"}
    start, chat = blocks()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        serve = [str(Path(sys.executable).with_name("aiproject")), "serve"]
        with log.open("wb") as output:
            server = subprocess.Popen(serve, cwd=folder, env=environment, stdout=output, stderr=output)
        try:
            _wait(port)
            yield f"$ {start.splitlines()[-1]}"
            yield from (_with_port(line, port) for line in log.read_text("utf-8").splitlines())
            typed = re.findall(r"^\S.*\n(?: .*\n)*", chat, re.MULTILINE)
            script = f"echo {MARK}\n".join(typed).replace("127.0.0.1:8080", f"127.0.0.1:{port}")
            done = subprocess.run(
                ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=True
            )
        finally:
            server.terminate()
            server.wait()
    for command, printed in zip(typed, done.stdout.split(f"{MARK}\n"), strict=True):
        yield from ("$ " + command.replace("\n ", "\n>")).splitlines()
        yield from printed.splitlines()


def _with_port(line: str, port: str) -> str:
    """Show 8080 instead of ``port``; the right edge of the banner stays where it was."""
    shown = line.replace(port, "8080")
    return shown.removesuffix("│") + " " * (len(line) - len(shown)) + "│" if line.endswith("│") else shown


def _wait(port: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def draw(lines: list[str]) -> str:
    """Return the picture of a terminal that shows ``lines``."""
    rows = [(part, TYPED if line.startswith(("$ ", "> ")) else PRINTED) for line in lines for part in _wrapped(line)]
    width = round(COLUMNS * CELL + 2 * MARGIN)
    height = BAR + len(rows) * LINE + 2 * MARGIN
    text = "\n".join(_row(*row, BAR + MARGIN + (index + 1) * LINE - 5) for index, row in enumerate(rows))
    dots = "".join(
        f'<circle cx="{20 + 20 * index}" cy="17" r="6" fill="{colour}"/>'
        for index, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">
<rect width="{width}" height="{height}" rx="9" fill="#1c2128"/>
<path d="M0 {BAR}V9a9 9 0 0 1 9-9H{width - 9}a9 9 0 0 1 9 9V{BAR}z" fill="#2d333b"/>
{dots}
<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,'Noto Sans Mono CJK SC',monospace" font-size="12">
{text}
</g>
</svg>
"""


def _cells(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _wrapped(line: str) -> Iterator[str]:
    row, used = "", 0
    for character in line:
        if used + _cells(character) > COLUMNS:
            yield row
            row, used = "", 0
        row += character
        used += _cells(character)
    yield row


def _row(row: str, colour: str, y: int) -> str:
    """Draw one line. Each run of characters of one width gets its exact length, whatever font the viewer has."""
    column, drawn = 0, []
    for cells, group in groupby(row, _cells):
        part = "".join(group)
        length = len(part) * cells
        if part.strip():
            drawn.append(
                f'<text x="{MARGIN + column * CELL:.1f}" y="{y}" fill="{colour}" textLength="{length * CELL:.1f}" '
                f'xml:space="preserve" lengthAdjust="spacingAndGlyphs">{escape(part)}</text>'
            )
        column += length
    return "".join(drawn)


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(draw(list(record())), "utf-8")
    print(PICTURE.relative_to(CLONE))
