"""Commands speak the language of the locale; what scripts read is the same in every one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from aiproject.adapters import log
from aiproject.cli.main import app

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command in this process, on a data directory of the test's own."""
    monkeypatch.setenv("AIPROJECT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(log, "configure", lambda *_, **__: None)
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: str, stdin: str = "", **variables: str) -> Result:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return CliRunner().invoke(app, list(words), input=stdin)

    return run


ADD = ("user", "add", "小明", "--email", "a@b.cn")


@pytest.mark.parametrize(
    ("locale", "added", "taken", "short"),
    [
        ("zh_CN.UTF-8", "已添加 小明", "aiproject: 该名称已被使用", "aiproject: 密码至少需要 8 个字符"),
        (
            "en_US.UTF-8",
            "added 小明",
            "aiproject: this name is taken",
            "aiproject: The password must have at least 8 characters",
        ),
        (
            "C",
            "added 小明",
            "aiproject: this name is taken",
            "aiproject: The password must have at least 8 characters",
        ),
    ],
)
def test_confirmations_and_refusals(run: Run, locale: str, added: str, taken: str, short: str) -> None:
    assert run(*ADD, stdin="correct horse\n", LANG=locale).stdout.splitlines()[-1] == added  # behind the log
    again = run(*ADD, stdin="correct horse\n")
    assert (again.exit_code, again.stderr) == (65, f"{taken}\n")
    weak = run("user", "add", "小红", "--email", "a@b.cn", stdin="short\n")
    assert (weak.exit_code, weak.stderr) == (65, f"{short}\n")


def test_what_an_operator_has_to_fix(run: Run) -> None:
    chinese = run("user", "list", LC_ALL="zh_CN.UTF-8", AIPROJECT_DATABASE_URL="mysql://u:hunter2@h")
    assert (chinese.exit_code, chinese.stderr) == (78, "aiproject: AIPROJECT_DATABASE_URL：主机之后缺少数据库名\n")


def test_an_outage_keeps_its_diagnostics(run: Run) -> None:
    url = "mysql://u:hunter2@127.0.0.1:1/x"
    english = run("user", "list", LC_ALL="C", AIPROJECT_DATABASE_URL=url)
    chinese = run("user", "list", LC_ALL="zh_CN.UTF-8")
    assert english.exit_code == chinese.exit_code == 75
    diagnostics = english.stderr.removeprefix("aiproject: ").strip()
    assert chinese.stderr == f"aiproject: 服务暂时不可用，请稍后再试（{diagnostics}）\n"


def test_findings_of_the_doctor_keep_level_and_subject(run: Run) -> None:
    words = ("doctor", "--no-upstream")
    settings = {"AIPROJECT_HOST": "0.0.0.0", "AIPROJECT_ARGON2_MEMORY": "19456"}  # noqa: S104 - judged, not bound
    english = run(*words, LC_ALL="C", **settings).stdout.splitlines()
    chinese = run(*words, LC_ALL="zh_CN.UTF-8").stdout.splitlines()
    assert [line[:20] for line in english] == [line[:20] for line in chinese]
    assert any(line.startswith("fix   address        监听 0.0.0.0 且没有代理") for line in chinese)
    assert any(line.startswith("fix   address        listens on 0.0.0.0 without a proxy") for line in english)
