"""Types the commands of a documentation page as they are written, and compares what they print with what it shows."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Step", "differences", "steps", "type_in"]

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)

VOLATILE = (
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?(?:Z|\+00:00)?",
    r"cht[0-9a-f]+@dx[0-9a-f]+",
    r"sk-[0-9a-z]{10,}",
    r"\b\d{12,17}\b",
    r"\b[0-9a-f]{64}\b|\b[0-9a-f]{32}\b|\b[0-9a-f]{24}\b|\b[0-9a-f]{16}\b",
    r"curl/[\d.]+",
)
"""What differs between two runs: times, the platform's ids, keys, hashes, ids, account numbers, curl's version."""


@dataclass(frozen=True)
class Step:
    """A block of commands, and the text that the page shows as their output; ``None``: it shows none."""

    line: int
    commands: str
    shown: str | None


def steps(page: str) -> list[Step]:
    """Return the shell blocks of a page; the ``json`` or ``text`` block that follows one is its output."""
    found: list[Step] = []
    for fence in FENCE.finditer(page):
        indent, language, code = fence.groups()
        code = re.sub(f"^{indent}", "", code, flags=re.MULTILINE)
        if language == "sh":
            found.append(Step(page.count("\n", 0, fence.start()) + 1, code, None))
        elif language in ("json", "text") and found and found[-1].shown is None:
            found[-1] = Step(found[-1].line, found[-1].commands, code)
    return found


def type_in(typed: list[Step], folder: Path, environment: dict[str, str]) -> list[tuple[int, str]]:
    """Run the steps one after the other in one shell, and return each one's exit status and output.

    Both outputs of a command are taken, as a terminal shows them. Functions and variables serve the steps that follow.
    """
    records = folder / "typed"
    records.mkdir(exist_ok=True)
    script = "".join(
        f"{{ :\n{step.commands}\n}} >'{records}/{number}.out' 2>&1 </dev/null\necho $? >'{records}/{number}.status'\n"
        for number, step in enumerate(typed)
    )
    subprocess.run(["bash"], input=script, text=True, cwd=folder, env=environment, check=False, timeout=300)
    return [
        (int((records / f"{number}.status").read_text()), (records / f"{number}.out").read_text("utf-8"))
        for number in range(len(typed))
    ]


def differences(shown: str, printed: str) -> str | None:
    """Say where what was printed is not what the page shows; ``None`` if it is.

    A line with nothing but ``…`` stands for any lines, ``…`` within a line for any text.
    """
    wanted = [line.rstrip() for line in shown.splitlines() if line.strip()]
    got = [line.rstrip() for line in printed.splitlines() if line.strip()]
    while wanted:
        line = wanted.pop(0)
        if line == "…":
            if not wanted:
                return None
            while got and not re.fullmatch(_pattern(wanted[0]), got[0]):
                got.pop(0)
        elif not got or not re.fullmatch(_pattern(line), got[0]):
            return f"shown:   {line}\nprinted: {got[0] if got else 'nothing more'}"
        else:
            got.pop(0)
    return f"printed but not shown: {got[0]}" if got else None


def _pattern(line: str) -> str:
    parts = re.split(f"({'|'.join(VOLATILE)}|…)", line)
    return "".join(re.escape(part) if index % 2 == 0 else _any(part) for index, part in enumerate(parts))


def _any(part: str) -> str:
    if part == "…":
        return ".*"
    return next(f"(?:{pattern})" for pattern in VOLATILE if re.fullmatch(pattern, part))
