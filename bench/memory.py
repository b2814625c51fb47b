"""What the memory of an idle server consists of: per imported package, per feature that is loaded with its first use,
and of the whole process.

Resident memory, in KiB, from ``smaps_rollup``; Linux only. Each figure is of a process of its own.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

CREDENTIALS = {
    "AIPROJECT_IFLYTEK_APP_ID": "bench",
    "AIPROJECT_IFLYTEK_API_KEY": "0123456789abcdef",
    "AIPROJECT_IFLYTEK_API_SECRET": "0123456789abcdef",
}
"""Of nobody: an idle server calls no platform."""

FEATURES = {
    "a recording": "import aiproject.media.audio, numpy, soundfile, soxr",
    "a picture": "import aiproject.media.picture, aiproject.providers.iflytek.ocr",
    "an administrator's token, or a checkpoint": "import jwt, aiproject.ledger.checkpoint_keys as k, cryptography, "
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "a shared Redis": "import redis.asyncio",
    "the sandbox, without credentials": "import aiproject.sandbox.running",
    "an upgrade of the schema": "import alembic.command",
}
"""What is imported with the first use of a feature, beside what every server imports."""

SERVER = "import aiproject.cli.serve"

RSS = """
def rss():
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Rss:"))
"""

BY_PACKAGE = """
import collections, importlib.abc, json, sys
own, inner = collections.Counter(), []

class Loader(importlib.abc.Loader):
    def __init__(self, loader): self.loader = loader
    def __getattr__(self, name): return getattr(self.loader, name)
    def create_module(self, spec): return self.loader.create_module(spec)
    def exec_module(self, module):
        before = rss()
        inner.append(0)
        try:
            self.loader.exec_module(module)
        finally:
            grown = rss() - before
            own[module.__name__.partition(".")[0]] += grown - inner.pop()
            if inner: inner[-1] += grown

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)) is not None:
                if hasattr(spec.loader, "exec_module"): spec.loader = Loader(spec.loader)
                return spec

own["the interpreter"] = rss()
sys.meta_path.insert(0, Finder())
{server}
print(json.dumps(own))
"""


def run() -> dict[str, dict[str, int]]:
    """Measure, and return KiB by what takes them, in three groups."""
    packages: dict[str, int] = json.loads(_python(RSS + BY_PACKAGE.replace("{server}", SERVER)))
    largest = dict(sorted(packages.items(), key=lambda item: -item[1])[:12])
    largest["other packages"] = sum(packages.values()) - sum(largest.values())
    first_uses = {
        name: int(_python(f"{RSS}\n{SERVER}\nbefore = rss()\n{imported}\nprint(rss() - before)"))
        for name, imported in FEATURES.items()
    }
    whole = {"with the platform's credentials": _idle(CREDENTIALS), "with the embedded sandbox": _idle({})}
    return {"imports of a server": largest, "loaded by": first_uses, "idle server": whole}


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def _idle(settings: dict[str, str]) -> int:
    """Return the memory of a server on a database that is up to date, some seconds after it is ready."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        # Without the variables of this shell: a setting of its own, a Redis for example, would be measured as well.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AIPROJECT_")}
        environment = clean | settings | {"AIPROJECT_DATA_DIR": folder, "AIPROJECT_PORT": str(port)}
        program: list[str | Path] = [sys.executable, "-m", "aiproject"]
        subprocess.run([*program, "db", "upgrade"], env=environment, capture_output=True, check=True)
        server = subprocess.Popen(
            [*program, "serve"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            _await(f"http://127.0.0.1:{port}/ready")
            time.sleep(5)
            rollup = Path(f"/proc/{server.pid}/smaps_rollup").read_text("ascii")
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Rss:"))


def _await(url: str) -> Any:
    until = time.monotonic() + 60
    while True:
        try:
            return urllib.request.urlopen(url, timeout=5).read()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
