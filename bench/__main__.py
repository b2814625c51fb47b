"""``make bench``: run the benchmarks, print a table, write it under ``bench/results/``.

``python -m bench ledger`` runs one of them; ``python -m bench relay --help`` tells what the relay's takes.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import answer_times, ledger, login_storm, memory, websocket_clients
from bench.relay import command as relay

RESULTS = Path(__file__).parent / "results"


def measure_clients(console: Console) -> None:
    clients = websocket_clients.run()
    best = min(clients.values())
    table = Table("websocket client", "CPU µs a 50-frame chat", "ratio", title="Outgoing websocket clients")
    for name, value in clients.items():
        table.add_row(name, f"{value:.0f}", f"{value / best:.2f}")
    console.print(table)
    write(
        "websocket-clients",
        unit="CPU microseconds a chat of 50 frames, median of alternating rounds",
        results={name: round(value, 1) for name, value in clients.items()},
    )


def measure_ledger(console: Console) -> None:
    fsync_ms = ledger.measure_fsync()
    databases = ledger.run()
    title = f"Hold and capture, each committed durably (an fsync takes {fsync_ms:.2f} ms here)"
    table = Table("database", "load", "pairs a second", "CPU µs a pair", "ms a hold", title=title)
    for name, by_load in databases.items():
        for load, figures in by_load.items():
            table.add_row(
                name,
                str(load),
                f"{figures.pairs_per_second:,.0f}",
                f"{figures.cpu_us:.0f}",
                f"{figures.latency_ms:.2f}",
            )
    console.print(table)
    write(
        "ledger",
        unit="pairs of hold and capture a second; CPU microseconds of our process a pair; median milliseconds a hold",
        machine={"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "fsync_ms": round(fsync_ms, 3)},
        results={
            name: {
                str(load): {
                    "pairs_per_second": round(figures.pairs_per_second),
                    "cpu_us": round(figures.cpu_us, 1),
                    "hold_ms": round(figures.latency_ms, 2),
                }
                for load, figures in by_load.items()
            }
            for name, by_load in databases.items()
        },
    )


def measure_login_storm(console: Console) -> None:
    figures = login_storm.run()
    table = Table(
        "",
        "gaps",
        "p50 ms",
        "p99 ms",
        "most ms",
        "last p50",
        "last p99",
        title=f"Frames of {login_storm.STREAMS} streams, without and with {login_storm.LOGINS} logins at once",
    )
    for name, spacing in (("calm", figures.calm), ("storm", figures.storm)):
        figures_of = (spacing.p50, spacing.p99, spacing.most, spacing.booked_p50, spacing.booked_p99)
        table.add_row(name, str(spacing.frames), *(f"{ms:.1f}" for ms in figures_of))
    console.print(table)
    console.print(
        f"{figures.logged_in} logged in within {figures.seconds:.0f} s; "
        f"{figures.refused} times one was told to come back"
    )
    write(
        "login-storm",
        unit="milliseconds between two frames at the client; the sandbox sends one every 40 ms; "
        "before the last one of an answer its charge is committed",
        machine={"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)},
        results={
            name: {
                "gaps": spacing.frames,
                "p50": round(spacing.p50, 1),
                "p99": round(spacing.p99, 1),
                "most": round(spacing.most, 1),
                "last_p50": round(spacing.booked_p50, 1),
                "last_p99": round(spacing.booked_p99, 1),
            }
            for name, spacing in (("calm", figures.calm), ("storm", figures.storm))
        },
        logins={
            "logged_in": figures.logged_in,
            "told_to_come_back": figures.refused,
            "seconds": round(figures.seconds, 1),
        },
    )


def measure_answer_times(console: Console) -> None:
    medians = answer_times.run()
    table = Table("asked", "case", "median ms", title="Refusals of known and unknown names, interleaved")
    for kind, cases in medians.items():
        for case, milliseconds in cases.items():
            table.add_row(kind, case, f"{milliseconds:.2f}")
    console.print(table)
    if any(answer_times.differs(kind, cases) for kind, cases in medians.items()):
        sys.exit("the time of an answer tells who exists, or this machine was too busy to say")
    write(
        "answer-times",
        unit="milliseconds, medians",
        results={kind: {case: round(value, 3) for case, value in cases.items()} for kind, cases in medians.items()},
    )


def measure_memory(console: Console) -> None:
    groups = memory.run()
    table = Table("", "", "MiB", title="Resident memory of an idle server")
    for group, figures in groups.items():
        for name, kib in figures.items():
            table.add_row(group, name, f"{kib / 1024:.1f}")
    console.print(table)
    write("memory", unit="KiB of resident memory", results=groups)


BENCHMARKS: Mapping[str, Callable[[Console], None]] = {
    "websocket": measure_clients,
    "ledger": measure_ledger,
    "login-storm": measure_login_storm,
    "answer-times": measure_answer_times,
    "memory": measure_memory,
    "relay": lambda _: relay.main([]),
}


def write(name: str, **content: Any) -> None:
    RESULTS.mkdir(exist_ok=True)
    said = {"measured": datetime.now(UTC).date().isoformat(), "python": platform.python_version(), **content}
    (RESULTS / f"{name}.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def main(names: list[str]) -> None:
    if names[:1] == ["relay"]:
        relay.main(names[1:])
        return
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        sys.exit(f"there is no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(BENCHMARKS)}")
    for name in names or BENCHMARKS:
        BENCHMARKS[name](Console())


if __name__ == "__main__":
    main(sys.argv[1:])
