"""The programs in ``tools/``: each starts, and is run by somebody, so that none rots unnoticed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import program
from services import CLONE

TOOLS = sorted((CLONE / "tools").iterdir())
PROGRAMS = [path for path in TOOLS if path.suffix == ".py"]
SCRIPTS = [path for path in TOOLS if path.suffix == ".sh"]
PACKAGES = [path for path in TOOLS if (path / "__main__.py").is_file()]

RUN_BY_HAND = {"kill_test.py", "make_examples.py", "make_picture.py"}
"""What no verb of the Makefile runs: its short form is ``system/test_kill.py``; examples and picture are committed."""


def start(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
        env=program.environment(**variables),
    )


def test_nothing_else_lies_there() -> None:
    assert {path.name for path in TOOLS if path.name != "__pycache__"} == {
        path.name for path in [*PROGRAMS, *SCRIPTS, *PACKAGES]
    }


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_each_can_be_imported(path: Path) -> None:
    done = start(sys.executable, "-c", f"import runpy; runpy.run_path({str(path)!r}, run_name='imported')")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "path", [path for path in PROGRAMS if "argparse" in path.read_text("utf-8")], ids=lambda path: path.name
)
def test_each_that_takes_words_explains_them(path: Path) -> None:
    done = start(sys.executable, str(path), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {path.name}")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_each_script_can_be_read_by_a_shell(path: Path) -> None:
    assert os.access(path, os.X_OK)
    done = start("sh", "-n", str(path))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", [*PROGRAMS, *SCRIPTS], ids=lambda path: path.name)
def test_each_is_run_by_a_verb(path: Path) -> None:
    is_run = f"tools/{path.name}" in (CLONE / "Makefile").read_text("utf-8")
    assert is_run is (path.name not in RUN_BY_HAND)


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.name)
def test_each_package_explains_itself_and_is_run_by_a_verb(path: Path) -> None:
    done = start("sh", "-c", f"cd '{CLONE}' && exec '{sys.executable}' -m tools.{path.name} --help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: python -m tools.{path.name}")
    assert f"-m tools.{path.name}" in (CLONE / "Makefile").read_text("utf-8")


@pytest.mark.parametrize(("demanded", "status"), [("", 0), ("0", 0), ("1", 1)])
def test_a_cluster_that_cannot_be_had_is_skipped_loudly_or_fails(demanded: str, status: int) -> None:
    code = (
        "import runpy, sys; sys.argv = ['galera_test.py', '--brief']; sys.path.insert(0, 'tests'); import services\n"
        "def find_galera(): raise services.ServerMissing('no Galera here')\n"
        "services.find_galera = find_galera\n"
        "runpy.run_path('tools/galera_test.py', run_name='__main__')"
    )
    variables = {"AIPROJECT_REQUIRE_SERVICES": demanded} if demanded else {}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=CLONE,
        env=program.environment(**variables),
    )
    assert (done.returncode, done.stderr) == (status, "galera_test: MISSING: no Galera here\n")
