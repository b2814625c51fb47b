"""``make bench``: run the benchmarks, print a table for each, write it under ``bench/results/``."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import ledger, websocket_clients

RESULTS = Path(__file__).parent / "results"

console = Console()


def write(name: str, unit: str, results: Any) -> None:
    """Keep the figures of one benchmark with what they were measured by."""
    RESULTS.mkdir(exist_ok=True)
    kept = {
        "measured": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "unit": unit,
        "results": results,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def bench_websocket_clients() -> None:
    clients = websocket_clients.run()
    best = min(clients.values())
    table = Table("websocket client", "CPU µs a 50-frame chat", "ratio", title="Outgoing websocket clients")
    for name, value in clients.items():
        table.add_row(name, f"{value:.0f}", f"{value / best:.2f}")
    console.print(table)
    write(
        "websocket-clients",
        "CPU microseconds a chat of 50 frames, median of alternating rounds",
        {name: round(value, 1) for name, value in clients.items()},
    )


def bench_ledger() -> None:
    by_database = ledger.run()
    table = Table("database", "callers", "pairs a second", "CPU µs a pair", "ms a hold", title="Hold and capture")
    for database, by_callers in by_database.items():
        for callers, figures in by_callers.items():
            table.add_row(
                database,
                str(callers),
                f"{figures.pairs_per_second:.0f}",
                f"{figures.cpu_us:.0f}",
                f"{figures.latency_ms:.2f}",
            )
    console.print(table)
    write(
        "ledger",
        "pairs of a hold and its capture a second, committed durably; CPU of our process; median of rounds",
        {
            database: {
                str(callers): {
                    "pairs_per_second": round(figures.pairs_per_second),
                    "cpu_us_per_pair": round(figures.cpu_us),
                    "ms_per_hold": round(figures.latency_ms, 2),
                }
                for callers, figures in by_callers.items()
            }
            for database, by_callers in by_database.items()
        },
    )


if __name__ == "__main__":
    bench_websocket_clients()
    bench_ledger()
