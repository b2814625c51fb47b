"""A typed TypeScript client can be generated from the description: a right one compiles, mistakes do not."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from aiproject.web.openapi import describe

SOURCES = Path(__file__).parents[1] / "typescript"


@pytest.fixture(scope="module")
def project(typescript_packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the compiler, the sources and the types that were generated from the description."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "node_modules").symlink_to(typescript_packages)
    for source in SOURCES.glob("*.ts"):
        shutil.copy(source, folder)
    for name in ("tsconfig.json", "package.json"):
        shutil.copy(SOURCES / name, folder)
    (folder / "openapi.json").write_text(json.dumps(describe()), encoding="utf-8")
    done = run(folder, "openapi-typescript", "openapi.json", "--output", "schema.ts")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def run(folder: Path, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the packages."""
    command = [str(folder / "node_modules" / ".bin" / program), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


def refused_lines(folder: Path) -> set[tuple[str, int]]:
    """Compile the project, and return the sources and the numbers of the lines that the compiler refuses."""
    done = run(folder, "tsc", "--project", ".", "--pretty", "false")
    found = re.findall(r"^(\S+)\((\d+),\d+\): error", done.stdout, re.MULTILINE)
    return {(source, int(number)) for source, number in found}


def test_a_client_compiles(project: Path) -> None:
    (project / "mistakes.ts").unlink(missing_ok=True)
    done = run(project, "tsc", "--project", ".", "--pretty", "false")
    assert (done.returncode, done.stdout) == (0, "")


def test_mistakes_do_not_compile(project: Path) -> None:
    shutil.copy(SOURCES / "mistakes.ts", project)
    lines = (SOURCES / "mistakes.ts").read_text(encoding="utf-8").splitlines()
    wrong = {("mistakes.ts", number) for number, line in enumerate(lines, 1) if line.endswith("// wrong")}
    assert len(wrong) >= 10
    assert refused_lines(project) == wrong
