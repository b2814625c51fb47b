"""The figures as tables: results of scenarios in, titles and rows of text out, for the console and the document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.relay.aims import CHAT, STREAM, judge

__all__ = ["RENDERERS", "Table", "markdown", "tables"]

Results = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """One table of text; every row has a cell for each column."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


def tables(results: Results) -> Iterator[Table]:
    """Yield the tables of those scenarios that there are results of; the aims come first."""
    if aims := judge(results):
        rows = [
            (
                aim.what,
                f"{'≥' if aim.is_least else '≤'} {_short(aim.bound)} {aim.unit}".rstrip(),
                f"{_short(aim.measured)} {aim.unit}".rstrip(),
                "met" if aim.is_met else "NOT met",
            )
            for aim in aims
        ]
        yield Table("Aims", ("what", "aim", "measured", ""), rows)
    for name, render in RENDERERS.items():
        if name in results:
            yield render({key: found for key, found in results[name].items() if key != "run"})


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def markdown(table: Table) -> str:
    """Return a table as a section of a Markdown document."""
    lines = [
        f"| {' | '.join(table.columns)} |",
        f"|{'---|' * len(table.columns)}",
        *(f"| {' | '.join(row)} |" for row in table.rows),
    ]
    return "\n".join([f"### {table.title}", "", *lines, *(["", table.note] if table.note else []), ""])


COSTS = (
    ("CPU µs", "cpu_us", "{:,.0f}"),
    ("ratio", "ratio", "{:.2f}"),
    ("a frame more", "cpu_us_a_frame", "{:.1f}"),
    ("calls/s", "calls_a_second", "{:,.0f}"),
    ("first ms", "first_ms_p50", "{:.1f}"),
    ("p50 ms", "whole_ms_p50", "{:.1f}"),
    ("p99 ms", "whole_ms_p99", "{:.1f}"),
)


def _compared(title: str, results: Results) -> Table:
    rows = []
    notes = []
    for path in (CHAT, STREAM):
        for name, found in results.items():
            if not isinstance(found, Mapping) or path not in found:
                continue
            figures = found[path]
            cells = [form.format(figures[key]) for _, key, form in COSTS]
            rows.append((path.rpartition("/")[2], name, *cells, f"{found['memory_mib']:.0f}"))
            if "database_cpu_us" in figures:
                notes.append(f"{path.rpartition('/')[2]} {figures['database_cpu_us']:,.0f} µs")
    note = f"Beside that, MySQL's own server used, a call: {', '.join(notes)}." if notes else ""
    return Table(title, ("call", "through", *(head for head, _, _ in COSTS), "MiB"), rows, note)


def _cost(results: Results) -> Table:
    return _compared("Cost of a call of 50 frames (64 at once)", results)


def _peers(results: Results) -> Table:
    return _compared("AiProject and LiteLLM, each by its own dialect", results)


def _concurrency(results: Results) -> Table:
    rows = [
        (
            level,
            name,
            f"{figures['cpu_us']:,.0f}",
            f"{figures['calls_a_second']:,.0f}",
            f"{figures['whole_ms_p50']:,.0f}",
            f"{figures['whole_ms_p99']:,.0f}",
        )
        for name, by_level in results.items()
        if isinstance(by_level, Mapping)
        for level, figures in by_level.items()
    ]
    rows.sort(key=lambda row: int(row[0]))
    return Table("Chats at once", ("at once", "through", "CPU µs", "calls/s", "p50 ms", "p99 ms"), rows)


def _many(results: Results) -> Table:
    rows = [
        (
            name,
            f"{figures['dropped_streams']}",
            *(f"{figures['delay_ms'].get(share, 0.0):.1f}" for share in ("0.5", "0.99", "0.999")),
            f"{100 * figures['share_within_20_ms']:.2f} %",
            f"{figures['spacing_ms_p99']:.1f}",
            f"{figures['share_of_a_core']:.2f}",
            f"{100 * figures['share_of_the_time_without_a_core']:.0f} %",
            f"{figures['cpu_us_a_frame']:.1f}",
            f"{figures['kib_a_stream']:.1f}",
        )
        for name, figures in results.items()
        if isinstance(figures, Mapping)
    ]
    columns = ("through", "dropped", "late p50 ms", "p99", "p99.9", "< 20 ms")
    return Table(
        f"{results['streams']:,} streams of {results['frames_a_second_each']:g} frames/s for {results['seconds']} s",
        (*columns, "spacing error p99 ms", "cores", "kept waiting", "CPU µs a frame", "KiB a stream"),
        rows,
        f"Late: from the stand-in's writing to the client's reading, of {results['watched']} streams that a process of "
        "its own watches. Kept waiting: the share of the time in which the server could have run and others had its "
        "core. What the harness itself adds, on a core that it shares with others, is in the bare relay's "
        "figures, too.",
    )


def _slow(results: Results) -> Table:
    row = (
        f"{results['asked']:,}",
        f"{results['streams']:,}",
        f"{results['alive']:,}",
        f"{results['memory_mib']:,.0f}",
        f"{results['kib_a_stream']:.1f}",
    )
    is_short = results["streams"] < results["asked"]
    note = "The system's hard limit of open files allowed no more: each stream takes two." if is_short else ""
    return Table(
        "Slow streams, one frame in 10 s",
        ("meant", "asked for", "open", "MiB of the process", "KiB a stream"),
        [row],
        note,
    )


def _first(results: Results) -> Table:
    rows = [
        (
            name,
            f"{figures['first_ms_p50']:.1f}",
            f"{figures['first_ms_p99']:.1f}",
            f"{figures['round_trips']:.2f}",
            f"{figures['of_the_least']:.2f}",
        )
        for name, figures in results.items()
        if isinstance(figures, Mapping)
    ]
    title = f"First frame, upstream {results['rtt_ms']:g} ms away, {results['thinking_ms']} ms of thinking"
    return Table(title, ("through", "p50 ms", "p99 ms", "round trips", "of the least"), rows)


def _workers(results: Results) -> Table:
    rows = [
        (
            database,
            count,
            f"{figures['calls_a_second']:,.0f}",
            f"{figures['calls_a_second'] / found['1']['calls_a_second']:.2f}",
            f"{figures['cpu_us']:,.0f}",
            f"{figures['cores_used']:.2f}",
            f"{figures['calls_a_second'] / figures['cores_used']:,.0f}",
        )
        for database, found in results.items()
        if isinstance(found, Mapping) and "1" in found
        for count, figures in found.items()
    ]
    share = results["share_of_a_core"]
    note = f"Each worker was held to {share:g} of a core." if share else "Workers were not held to a share of a core."
    columns = ("database", "workers", "chats/s", "ratio", "CPU µs", "cores used", "chats/s a core")
    return Table("One worker and two", columns, rows, note)


def _growth(results: Results) -> Table:
    rows = [
        (
            f"{scale['accounts']:,}",
            f"{scale['entries']:,}",
            f"{scale['database_mib']:,.0f}",
            f"{scale['cpu_us']:,.0f}",
            f"{scale['ratio']:.2f}",
            f"{scale['whole_ms_p50']:.0f}",
        )
        for scale in results["scales"]
    ]
    columns = ("accounts", "ledger entries", "database MiB", "CPU µs a chat", "ratio", "p50 ms")
    return Table("Growing ledger (SQLite)", columns, rows)


def _soak(results: Results) -> Table:
    names = (("memory_mib", "memory MiB"), ("descriptors", "descriptors"), ("threads", "threads"), ("tasks", "tasks"))
    rows = [
        (what, f"{results['before'][name]:.4g}", f"{results['after'][name]:.4g}")
        for name, what in (*names, ("open_holds", "open holds"))
    ]
    note = (
        f"{results['calls']:,} calls, {results['share_of_a_core']:.2f} of a core; memory's slope after the warm-up: "
        f"{results['slope_mib_an_hour']:+.1f} MiB an hour."
    )
    return Table(f"{results['minutes']:g} minutes at half load", ("", "before", "after"), rows, note)


RENDERERS: Mapping[str, Callable[[Results], Table]] = {
    "cost": _cost,
    "peers": _peers,
    "concurrency": _concurrency,
    "many-streams": _many,
    "slow-streams": _slow,
    "first-frame": _first,
    "workers": _workers,
    "growth": _growth,
    "soak": _soak,
}
