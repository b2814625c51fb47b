"""``make bench``: run the benchmarks, print a table, write it under ``bench/results/``."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import websocket_clients

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    console = Console()
    clients = websocket_clients.run()
    best = min(clients.values())
    table = Table("websocket client", "CPU µs a 50-frame chat", "ratio", title="Outgoing websocket clients")
    for name, value in clients.items():
        table.add_row(name, f"{value:.0f}", f"{value / best:.2f}")
    console.print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "websocket-clients.json").write_text(
        json.dumps(
            {
                "measured": datetime.now(UTC).date().isoformat(),
                "python": platform.python_version(),
                "unit": "CPU microseconds a chat of 50 frames, median of alternating rounds",
                "results": {name: round(value, 1) for name, value in clients.items()},
            },
            indent=2,
        )
        + "\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
