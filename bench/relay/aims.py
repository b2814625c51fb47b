"""The aims that were set before the work, and what came of them: plain data in, plain data out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Aim", "judge"]

CHAT = "/textModel/chat"
STREAM = "/textModel/stream"
BARE = "bare ASGI relay"
OURS = "AiProject"
FLASK = "Flask + gevent relay"
LITELLM = "LiteLLM proxy"


@dataclass(frozen=True, slots=True)
class Aim:
    """One aim.

    Attributes:
        bound: the most, or the least where ``is_least``, that ``measured`` may be.
    """

    what: str
    bound: float
    measured: float
    unit: str = "×"
    is_least: bool = False

    @property
    def is_met(self) -> bool:
        return self.measured >= self.bound if self.is_least else self.measured <= self.bound


def judge(results: Mapping[str, Any]) -> list[Aim]:
    """Return the aims that the results of scenarios, by name, say something about."""
    return [
        *_cost(results.get("cost", {})),
        *_peers(results.get("peers", {})),
        *_crowds(results),
        *_first_frame(results.get("first-frame", {})),
        *_workers(results.get("workers", {})),
        *_soak(results.get("soak", {})),
        *_flatness(results),
    ]


def _cost(cost: Mapping[str, Any]) -> Iterator[Aim]:
    if OURS not in cost:
        return
    ours, bare, flask = cost[OURS], cost[BARE], cost.get(FLASK)
    for path, most, share in ((CHAT, 1.6, 1 / 5), (STREAM, 1.5, 1 / 4)):
        name = path.rpartition("/")[2]
        yield Aim(f"CPU of a {name}, of the bare relay's", most, ours[path]["ratio"])
        if flask is not None:
            measured = ours[path]["cpu_us"] / flask[path]["cpu_us"]
            yield Aim(f"CPU of a {name}, of the Flask relay's", share, measured)
        a_frame = ours[path]["cpu_us_a_frame"] / bare[path]["cpu_us_a_frame"]
        yield Aim(f"CPU of one more frame of a {name}, of the bare relay's", 1.3, a_frame)


def _peers(peers: Mapping[str, Any]) -> Iterator[Aim]:
    if LITELLM in peers:
        for path, least in ((CHAT, 10.0), (STREAM, 40.0)):
            name = path.rpartition("/")[2]
            yield Aim(f"LiteLLM's CPU of a {name}, of ours", least, peers[LITELLM][path]["ratio"], is_least=True)


def _crowds(results: Mapping[str, Any]) -> Iterator[Aim]:
    if many := results.get("many-streams"):
        ours, streams = many[OURS], many["streams"]
        yield Aim(f"dropped of {streams:,} streams", 0, ours["dropped_streams"], "")
        late = 100 * ours["share_within_20_ms"]
        yield Aim(f"frames of {streams:,} streams that are less than 20 ms late", 99, late, "%", is_least=True)
        yield Aim("memory of a further open stream", 60, ours["kib_a_stream"], "KiB")
    if slow := results.get("slow-streams"):
        yield Aim("slow streams open in one process", 10_000, slow["alive"], "", is_least=True)
        yield Aim("memory of the process with them", 1024, slow["memory_mib"], "MiB")


def _first_frame(first: Mapping[str, Any]) -> Iterator[Aim]:
    if first:
        measured = first["AiProject, warm"]["of_the_least"]
        yield Aim("time to the first frame, warm, of one round trip and the model's delay", 1.15, measured)


def _workers(workers: Mapping[str, Any]) -> Iterator[Aim]:
    for database in ("SQLite", "MySQL"):
        if one_and_two := workers.get(database):
            measured = one_and_two["2"]["calls_a_second"] / one_and_two["1"]["calls_a_second"]
            yield Aim(f"throughput of two workers, of one's, {database}", 1.8, measured, is_least=True)


def _soak(soak: Mapping[str, Any]) -> Iterator[Aim]:
    if soak:
        before, after = soak["before"], soak["after"]
        for name, what in (("descriptors", "descriptors"), ("tasks", "tasks"), ("open_holds", "open holds")):
            yield Aim(f"{what} left over after {soak['minutes']:g} minutes", 0, max(0, after[name] - before[name]), "")


def _flatness(results: Mapping[str, Any]) -> Iterator[Aim]:
    """No bound was set in numbers; a tenth is what two rounds on a shared machine may differ by."""
    if (concurrency := results.get("concurrency")) and {"10", "1000"} <= set(concurrency[OURS]):
        levels = concurrency[OURS]
        ratio = levels["1000"]["cpu_us"] / levels["10"]["cpu_us"]
        yield Aim("CPU of a chat at 1,000 calls at once, of that at 10 (bound of ours)", 1.1, ratio)
    if growth := results.get("growth"):
        worst = max(growth["scales"], key=lambda scale: scale["ratio"])
        what = f"CPU of a chat with {worst['entries']:,} entries (the dearest), of that with few (bound of ours)"
        yield Aim(what, 1.1, worst["ratio"])
