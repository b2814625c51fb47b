"""Writes ``docs/{en,zh}/reference/``: ``python -m tools.reference [--check]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.reference.catalogue import Untranslated
from tools.reference.pages import pages

CLONE = Path(__file__).resolve().parents[2]


def main() -> int:
    """Write the pages, or with ``--check`` only compare them; 1 where one differs or a text has no translation."""
    parser = argparse.ArgumentParser(prog="python -m tools.reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 where a page differs")
    only_compares = parser.parse_args().check
    try:
        written = pages()
    except Untranslated as error:
        print(error, file=sys.stderr)
        return 1
    stale = [path for path, text in written.items() if not _holds(CLONE / path, text)]
    if only_compares:
        print("\n".join(f"{path} is not what the code says; run python -m tools.reference" for path in stale))
        return 1 if stale else 0
    for path in stale:
        (CLONE / path).parent.mkdir(parents=True, exist_ok=True)
        (CLONE / path).write_text(written[path], encoding="utf-8")
        print(f"wrote {path}")
    return 0


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
