"""Where results go: the console, ``bench/results/relay.json`` with plots beside it, and the performance page."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import rich.box
from rich.console import Console
from rich.table import Table as RichTable

from bench.relay.chinese import in_chinese
from bench.relay.processes import CLONE
from bench.relay.tables import Table, markdown, tables

__all__ = ["DOCUMENTS", "RESULTS", "keep", "load", "plot", "show", "with_figures", "write_documents"]

RESULTS = CLONE / "bench" / "results" / "relay.json"
DOCUMENTS = {language: CLONE / "docs" / language / "explanation" / "performance.md" for language in ("en", "zh")}
BEGIN = "<!-- figures: written by `python -m bench relay`, begin -->"
END = "<!-- figures: end -->"
DIGITS = 6
"""Significant digits that are kept."""


def load() -> dict[str, Any]:
    """Return all results that are kept: by scenario, what was found, and when and how."""
    if not RESULTS.exists():
        return {}
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return found


def keep(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Put one scenario's results in the place of its former ones; return all."""
    results = load()
    results[name] = {"run": _run(), **found}
    RESULTS.write_text(json.dumps(_short(results), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return load()


def show(results: Mapping[str, Any], console: Console) -> None:
    """Print tables."""
    for table in tables(results):
        console.print(_rich(table))
        if table.note:
            console.print(table.note)


def write_documents(results: Mapping[str, Any]) -> None:
    """Put the tables in their place in the page of each language."""
    for language, document in DOCUMENTS.items():
        text = with_figures(document.read_text(encoding="utf-8"), results, language)
        document.write_text(text, encoding="utf-8")


def with_figures(text: str, results: Mapping[str, Any], language: str = "en") -> str:
    """Return the page ``text`` with the tables of ``results`` between its marks.

    Raises:
        ValueError: it has no such marks.
        Untranslated: the tables have a text that has no Chinese.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the document has no place for figures")
    runs = [
        (name, str(found["run"]["measured"]), str(found["run"]["revision"]), str(found["run"]["load"]))
        for name, found in results.items()
    ]
    found_tables = [*tables(results), Table("When", ("scenario", "day", "revision", "load average at its end"), runs)]
    if language == "zh":
        found_tables = [in_chinese(table) for table in found_tables]
    parts = [markdown(table) for table in found_tables]
    parts[-1] = parts[-1].rstrip("\n")
    return "".join([before, begin, "\n\n", "\n".join(parts), "\n\n", end, after])


def plot(python: str) -> None:
    """Draw the plots beside the results, with the Python that has matplotlib."""
    subprocess.run([python, "-m", "bench.relay.plots", str(RESULTS), str(RESULTS.parent)], check=True, cwd=CLONE)


def _run() -> dict[str, Any]:
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=CLONE
    )
    return {
        "measured": datetime.now(UTC).date().isoformat(),
        "revision": revision.stdout.strip() or "unknown",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _short(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_short(one) for one in value]
    return value


def _rich(table: Table) -> RichTable:
    rendered = RichTable(*table.columns, title=table.title, box=rich.box.SIMPLE)
    for row in table.rows:
        rendered.add_row(*row)
    return rendered
