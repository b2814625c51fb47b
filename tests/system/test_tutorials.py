"""The READMEs and the tutorials, in both languages: their commands, typed as written, print what the pages show."""

from __future__ import annotations

import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
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
INSTALLS = re.compile(r"^(git clone .*|make run)$", re.MULTILINE)
"""What the fixture does instead."""


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture
def clone(tmp_path: Path, port: int) -> Iterator[Path]:
    """A folder like a clone in which ``make run`` runs: the command, the examples, a server and its new data."""
    (tmp_path / "examples").symlink_to(CLONE / "examples")
    command = tmp_path / ".venv" / "bin" / "aiproject"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec {" ".join(program.COMMAND)} "$@"\n')
    command.chmod(0o755)
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen([str(command), "serve"], cwd=tmp_path, env=_environment(port), stderr=log)
        try:
            _wait(port)
            yield tmp_path
        finally:
            server.terminate()
            server.wait(30)


def _environment(port: int) -> dict[str, str]:
    return program.environment(AIPROJECT_PORT=str(port), AIPROJECT_LOG_LEVEL="warning")


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


@pytest.mark.slow
@pytest.mark.parametrize("language", PAGES)
def test_the_commands_print_what_the_pages_show(language: str, clone: Path, port: int) -> None:
    wrong = []
    for name in PAGES[language]:
        typed = [
            Step(step.line, INSTALLS.sub("", step.commands).replace("127.0.0.1:8080", f"127.0.0.1:{port}"), step.shown)
            for step in steps((CLONE / name).read_text("utf-8"))
        ]
        for step, (status, printed) in zip(typed, type_in(typed, clone, _environment(port)), strict=True):
            printed = printed.replace(f"127.0.0.1:{port}", "127.0.0.1:8080")
            if status:
                wrong.append(f"{name}:{step.line} exit status {status}: {printed}")
            elif step.shown is not None and (difference := differences(step.shown, printed)):
                wrong.append(f"{name}:{step.line}\n{difference}")
    assert not wrong, "\n".join(wrong)
