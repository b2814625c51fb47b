"""Plots of the results, as PNG: ``python -m bench.relay.plots relay.json folder``, by a Python that has matplotlib."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot

Results = Mapping[str, Any]
CALLS = {"/textModel/chat": "chat", "/textModel/stream": "stream"}


def _contenders(results: Results) -> dict[str, Any]:
    return {name: found for name, found in results.items() if isinstance(found, Mapping) and name != "run"}


def _cost(results: Results, axes: Any) -> None:
    contenders = _contenders(results)
    width = 0.8 / len(contenders)
    for number, (name, found) in enumerate(contenders.items()):
        places = [place + number * width for place in range(len(CALLS))]
        bars = axes.bar(places, [found[path]["cpu_us"] for path in CALLS], width, label=name)
        axes.bar_label(bars, fmt="{:,.0f}", fontsize=8)
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(CALLS))], list(CALLS.values()))
    axes.set_ylabel("CPU µs a call of 50 frames")
    axes.legend(fontsize=8)


def _peers(results: Results, axes: Any) -> None:
    _cost(results, axes)
    axes.set_yscale("log")


def _concurrency(results: Results, axes: Any) -> None:
    for name, by_level in _contenders(results).items():
        axes.plot([int(level) for level in by_level], [one["cpu_us"] for one in by_level.values()], "o-", label=name)
    axes.set_xscale("log")
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    axes.set_xlabel("chats at once")
    axes.set_ylabel("CPU µs a chat")
    axes.legend(fontsize=8)


def _delays(results: Results, axes: Any) -> None:
    for name, found in _contenders(results).items():
        shares = [100 * float(share) for share in found["delay_ms"]]
        axes.plot(list(found["delay_ms"].values()), shares, "o-", markersize=3, label=name)
    axes.axvline(20, color="grey", linestyle=":")
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds from upstream's writing to the client's reading")
    axes.set_ylabel("% of frames")
    axes.legend(fontsize=8)


def _growth(results: Results, axes: Any) -> None:
    scales = results["scales"]
    axes.plot([scale["entries"] for scale in scales], [scale["cpu_us"] for scale in scales], "o-")
    axes.set_xscale("log")
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    axes.set_xlabel("ledger entries")
    axes.set_ylabel("CPU µs a chat")


def _soak(results: Results, axes: Any) -> None:
    minutes = [at / 60 for at, _, _ in results["samples"]]
    axes.plot(minutes, [memory for _, memory, _ in results["samples"]])
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    axes.set_xlabel("minutes")
    axes.set_ylabel("MiB, not shared with others")


PLOTS: Mapping[str, tuple[str, str, Callable[[Results, Any], None]]] = {
    "cost": ("relay-cost.png", "Cost of a call", _cost),
    "peers": ("relay-peers.png", "Beside LiteLLM, each by its own dialect", _peers),
    "concurrency": ("relay-concurrency.png", "Cost of a chat at more and more at once", _concurrency),
    "many-streams": ("relay-delays.png", "How late frames are with many streams", _delays),
    "growth": ("relay-growth.png", "Cost of a chat as the books grow", _growth),
    "soak": ("relay-soak.png", "Memory at half load", _soak),
}


def main(source: str, folder: str) -> None:
    """Draw what there are results of."""
    results = json.loads(Path(source).read_text(encoding="utf-8"))
    for name, (file, title, draw) in PLOTS.items():
        if name not in results:
            continue
        figure, axes = pyplot.subplots(figsize=(7, 4))
        draw(results[name], axes)
        axes.set_title(title)
        figure.tight_layout()
        figure.savefig(Path(folder) / file, dpi=100, metadata={"Software": None})
        pyplot.close(figure)


if __name__ == "__main__":
    main(*sys.argv[1:])
