"""Fuzz with atheris: ``python -m fuzz [TARGET ...] [--runs N]``, with src and tests on the path; see `make fuzz`.

Each target runs in a process of its own, since libFuzzer ends the process that it ran in. A crash, a hang of ten
seconds or 2 GiB of memory end the run with status 1; the input lies in build/fuzz/<target>/ then. What covered new code
is kept in build/fuzz/<target>/corpus/ for the next run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSTRUMENTED = ["aiproject", "python_multipart", "PIL", "uvicorn.protocols"]
HANG_SECONDS = 10
MAX_MEMORY_MB = 2048


def main() -> int:
    """Run the named targets, or all."""
    parser = argparse.ArgumentParser(prog="fuzz")
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--runs", type=int, help="inputs for each target; its own number if not given")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations; 0 is another one each time")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        fuzz(given.one, given.runs, given.seed)
    from fuzz.targets import TARGETS

    unknown = set(given.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    failed = []
    for name in given.targets or TARGETS:
        runs = given.runs or TARGETS[name].runs
        began = time.monotonic()
        command = [sys.executable, "-m", "fuzz", "--one", name, "--runs", str(runs), "--seed", str(given.seed)]
        status = subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode
        word = "fine" if status == 0 else f"FAILED ({status})"
        print(f"{name}: {runs} runs in {time.monotonic() - began:.0f} s: {word}", flush=True)
        if status:
            failed.append(name)
    return 1 if failed else 0


def fuzz(name: str, runs: int, seed: int) -> None:
    """Fuzz one target in this process, which does not outlive it."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        from fuzz.targets import TARGETS
    target = TARGETS[name]
    folder = ROOT / "build" / "fuzz" / name
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(target.seeds()):
        (corpus / f"seed{number}").write_bytes(content)
    options = [
        f"-runs={runs}",
        f"-seed={seed}",
        f"-max_len={target.longest}",
        f"-timeout={HANG_SECONDS}",
        f"-rss_limit_mb={MAX_MEMORY_MB}",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], target.feed)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
