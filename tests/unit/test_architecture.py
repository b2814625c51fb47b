"""The house's rules about its own code, read from the syntax trees."""

from __future__ import annotations

import ast
import importlib
import logging
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

import aiproject
from aiproject.adapters.db import schema

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "aiproject").rglob("*.py"))
# Without what is run and not imported: the entry point, and Alembic's scripts.
MODULES = sorted(
    name
    for _, name, _ in pkgutil.walk_packages(aiproject.__path__, "aiproject.")
    if name not in ("aiproject.__main__", "aiproject.adapters.db.migrations.env") and ".versions." not in name
)

# What a protocol core may import of the standard library and of others: nothing that waits, reads, writes or asks the
# time (`datetime` is looked at by name below).
PURE = {
    "__future__",
    "abc",
    "base64",
    "binascii",
    "bisect",
    "collections",
    "dataclasses",
    "datetime",
    "email",
    "enum",
    "fontTools",  # its `unicodedata`: tables of Unicode
    "functools",
    "hashlib",
    "hmac",
    "ipaddress",
    "json",
    "math",
    "msgspec",
    "numpy",  # arithmetic on bytes, for the masks of websocket frames
    "operator",
    "re",
    "types",
    "typing",
    "unicodedata",
    "urllib",
}


def place(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@pytest.fixture
def loggers_as_they_were() -> Iterator[None]:
    """Import-linter configures logging anew, which disables every logger that exists by then."""
    before = {name: logging.getLogger(name).disabled for name in logging.root.manager.loggerDict}
    yield
    for name, is_disabled in before.items():
        logging.getLogger(name).disabled = is_disabled


@pytest.mark.usefixtures("loggers_as_they_were")
def test_imports_run_downhill(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [str(ROOT / "src"), *sys.path])
    status = lint_imports(config_filename="pyproject.toml", no_cache=True, no_logo=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


@pytest.mark.parametrize("path", [path for path in SOURCES if "protocols" in path.parts], ids=place)
def test_protocol_cores_are_pure(path: Path) -> None:
    for node in ast.walk(parsed(path)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names = [node.module or ""]
        for name in names:
            room = name.partition(".")[0]
            if room == "aiproject":
                assert name.split(".")[1:2] in ([], ["protocols"], ["errors"], ["codes"], ["messages"]), name
            else:
                assert room in PURE, name
            assert not name.startswith("urllib.request")
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("now", "utcnow", "today"), f"{place(path)}:{node.lineno} asks for the time"
        if isinstance(node, ast.Name):
            assert node.id not in ("open", "input", "print"), f"{place(path)}:{node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=place)
def test_nobody_prints_or_swallows(path: Path) -> None:
    """The command line speaks through rich, the rest through the log; an error is never dropped without a word."""
    for node in ast.walk(parsed(path)):
        where = f"{place(path)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "eval", "exec", "breakpoint"), where
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{where}: a bare except"
            kinds = {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)}
            is_empty = all(isinstance(line, ast.Pass) for line in node.body)
            assert not (is_empty and kinds & {"Exception", "BaseException"}), where


@pytest.mark.parametrize("name", MODULES)
def test_what_a_module_offers_exists(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    offered = getattr(module, "__all__", [])
    assert len(offered) == len(set(offered))
    assert [each for each in offered if not hasattr(module, each)] == []


def test_importing_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is opened in `aiproject.wiring`; the names below exist only to be called there."""
    for path in SOURCES:
        for node in parsed(path).body:  # statements that run at import
            for call in (each for each in ast.walk(node) if isinstance(each, ast.Call)):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                    continue
                told = ast.unparse(call.func)
                assert told not in ("os.environ.get", "os.getenv", "open", "create_async_engine"), place(path)


@pytest.mark.parametrize("path", [path for path in SOURCES if "db" not in path.parts], ids=place)
def test_every_write_is_retried_in_one_place(path: Path) -> None:
    """Outside of `adapters/db` a transaction is opened by `Database.transact`, which repeats it after a conflict."""
    for node in ast.walk(parsed(path)):
        where = f"{place(path)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "begin":
            assert not ast.unparse(node.func.value).endswith("database"), where
        if isinstance(node, ast.ImportFrom):
            assert node.module != "aiproject.adapters.db.retry", where


SQL_MODULES = {
    # The ledger's batch is one transaction of hand-written statements, in parts; `verify` re-reads all of its tables.
    "ledger": ("batch", "sql", "idempotency", "key_limits", "unpaid", "verify"),
}
"""Beginnings of the names of modules with SQL, by package, beside ``store`` and ``…_store`` anywhere."""


def may_hold_sql(path: Path) -> bool:
    parts = path.relative_to(ROOT / "src" / "aiproject").parts
    if parts[:2] == ("adapters", "db") or path.stem == "store" or path.stem.endswith("_store"):
        return True
    return path.stem.startswith(SQL_MODULES.get(parts[0], ()) or "-")


@pytest.mark.parametrize("path", [path for path in SOURCES if not may_hold_sql(path)], ids=place)
def test_sql_is_in_stores_only(path: Path) -> None:
    """Everything else calls functions of a store; for a signature there is `adapters.db.engine.Connection`."""
    for node in ast.walk(parsed(path)):
        where = f"{place(path)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            assert not any(alias.name.partition(".")[0] == "sqlalchemy" for alias in node.names), where
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] != "sqlalchemy", where
            if node.module == "aiproject.adapters.db.schema":
                tables = {alias.name for alias in node.names} & {
                    name for name, value in vars(schema).items() if isinstance(value, sa.Table)
                }
                assert not tables, where
            assert not (node.module == "aiproject.adapters.db" and "schema" in {a.name for a in node.names}), where
