"""The READMEs and the tutorials, in both languages: their commands, typed as written, print what the pages show."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

import program
from services import free_port
from system.typed import Step, differences, steps, type_in
from tools.build_docs import site

CLONE = Path(__file__).resolve().parents[2]
TUTORIALS = [f"tutorials/{name}.md" for name in site()["sections"]["tutorials"]]
PAGES = {
    "en": [*(f"docs/en/{name}" for name in TUTORIALS), "README.md"],
    "zh": [*(f"docs/zh/{name}" for name in TUTORIALS), "README.zh-CN.md"],
}
LOCALES = {"en": "C.UTF-8", "zh": "zh_CN.UTF-8"}
INSTALLS = re.compile(r"^(git clone .*|make run)$", re.MULTILINE)
"""What `_clone` does instead."""


@pytest.mark.slow
@pytest.mark.timeout(600)  # half a minute of two processors, which other tests may be using
def test_the_commands_print_what_the_pages_show(
    tmp_path: Path, service_program: Callable[[str], str], machine_program: Callable[[str], str]
) -> None:
    """Both languages at once, each with a server and data of its own."""
    path = os.pathsep.join([str(Path(service_program("curl")).parent), os.environ["PATH"]])

    def wrong_in(language: str) -> list[str]:
        return list(_wrong(PAGES[language], tmp_path / language, PATH=path, LANG=LOCALES[language]))

    with ThreadPoolExecutor() as both:
        wrong = [line for lines in both.map(wrong_in, PAGES) for line in lines]
    assert not wrong, "\n".join(wrong)
    machine_program("node")  # without it, the steps that need it were left out


def _wrong(pages: list[str], folder: Path, **variables: str) -> Iterator[str]:
    """Yield where what is printed is not what the pages show."""
    port = free_port()
    terminal = program.environment(AIPROJECT_PORT=str(port), AIPROJECT_LOG_LEVEL="warning", **variables)
    with _clone(folder, port, terminal):
        for name in pages:
            typed = [_step(step, port) for step in steps((CLONE / name).read_text("utf-8"))]
            for step, (status, printed) in zip(typed, type_in(typed, folder, terminal), strict=True):
                printed = printed.replace(f"127.0.0.1:{port}", "127.0.0.1:8080")
                if status:
                    yield f"{name}:{step.line} exit status {status}: {printed}"
                elif step.shown is not None and (difference := differences(step.shown, printed)):
                    yield f"{name}:{step.line}\n{difference}"


@contextmanager
def _clone(folder: Path, port: int, terminal: dict[str, str]) -> Iterator[None]:
    """Make a folder like a clone in which ``make run`` runs: the command, the examples, a server and its new data."""
    command = folder / ".venv" / "bin" / "aiproject"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec {" ".join(program.COMMAND)} "$@"\n')
    command.chmod(0o755)
    (folder / "examples").symlink_to(CLONE / "examples")
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen([str(command), "serve"], cwd=folder, env=terminal, stderr=log)
    try:
        _wait(port)
        yield
    finally:
        server.terminate()
        server.wait(30)


def _wait(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def _step(step: Step, port: int) -> Step:
    """Lead a step to the port of this test, without what `_clone` has done, and without what cannot be run here."""
    commands, shown = INSTALLS.sub("", step.commands), step.shown
    if shutil.which("node") is None and re.search("^node ", commands, re.MULTILINE):
        commands, shown = re.sub("^node .*$", "", commands, flags=re.MULTILINE), None
    return Step(step.line, commands.replace("127.0.0.1:8080", f"127.0.0.1:{port}"), shown)
