"""The rules of CONTRIBUTING.md about what modules offer to each other, read from the syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src"

ENTRY_POINTS = {
    "aiproject.cli": {"main"},  # the console script of pyproject.toml, and `python -m aiproject`
    "aiproject.cli.main": {"app"},  # typer's, also for shell completion of embedders
    "aiproject.sandbox.engine_worker": {"main"},  # the child process of an engine
}
"""Public names that nothing in ``src/`` imports, because they are started from outside."""


def name_of(path: Path) -> str:
    parts = list(path.relative_to(SOURCES).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {name_of(path): ast.parse(path.read_text("utf-8")) for path in sorted(SOURCES.rglob("*.py"))}
PACKAGES = {name_of(path) for path in SOURCES.rglob("__init__.py")}
# What is run and not imported: Alembic's scripts.
IMPORTED = sorted(name for name in TREES if ".versions." not in name and not name.endswith((".env", "__main__")))


def offered(tree: ast.Module) -> list[str] | None:
    """Return a module's ``__all__``; ``None``: it has none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return None


def uses(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield module and name for each name of another module of ours that a module uses."""
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "aiproject":
            for alias in node.names:
                if f"{node.module}.{alias.name}" in TREES:
                    modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                else:
                    yield str(node.module), alias.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in modules:
            yield modules[ast.unparse(node.value)], node.attr


def commands() -> set[tuple[str, str]]:
    """Return what the command line imports by name, when a command is run."""
    calls = (node for node in ast.walk(TREES["aiproject.cli.main"]) if isinstance(node, ast.Call))
    targets = [ast.literal_eval(call.args[1]) for call in calls if ast.unparse(call.func) == "LazyCommand"]
    return {(f"aiproject.cli.{module}", name) for module, _, name in (target.partition(":") for target in targets)}


USED = {(module, name) for me, tree in TREES.items() for module, name in uses(tree) if module != me} | commands()


def interface_types(tree: ast.Module) -> set[str]:
    """Return the names in annotations, base classes and ``raise`` of a module: what public names promise."""
    found: list[ast.expr] = []
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                arguments += [each for each in (node.args.vararg, node.args.kwarg) if each is not None]
                found += [each for each in (node.returns, *(one.annotation for one in arguments)) if each is not None]
            case ast.AnnAssign():
                found.append(node.annotation)
            case ast.ClassDef():
                found += node.bases
            case ast.Raise() if node.exc is not None:
                found.append(node.exc)
            case ast.Assign() if isinstance(node.value, ast.BinOp | ast.Subscript):
                found.append(node.value)  # an alias of types
    return {name.id for each in found for name in ast.walk(each) if isinstance(name, ast.Name)}


@pytest.mark.parametrize("module", sorted(PACKAGES - {"aiproject.cli"}))
def test_a_package_re_exports_nothing(module: str) -> None:
    """Importing one module must not import its whole package: a command would load what only the server needs."""
    own = {
        node.name if not isinstance(node, ast.Assign) else ast.unparse(node.targets[0])
        for node in TREES[module].body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign)
    }
    assert set(offered(TREES[module]) or ()) <= own


@pytest.mark.parametrize("module", IMPORTED)
def test_what_begins_with_an_underscore_stays_in_its_package(module: str) -> None:
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aiproject"):
            package = module if module in PACKAGES else module.rpartition(".")[0]
            for alias in node.names:
                path = f"{node.module}.{alias.name}".split(".")
                hidden = next(
                    (i for i, part in enumerate(path) if part.startswith("_") and part != "__version__"), None
                )
                if hidden is not None:
                    inside = ".".join(path[:hidden])
                    assert f"{package}.".startswith(f"{inside}."), f"{module} imports {'.'.join(path)}"
                    assert hidden < len(path) - 1 or ".".join(path) in TREES, f"{module} imports {'.'.join(path)}"


@pytest.mark.parametrize("module", [name for name in IMPORTED if name not in PACKAGES])
def test_every_module_lists_what_it_offers(module: str) -> None:
    assert offered(TREES[module]) is not None


@pytest.mark.parametrize("module", IMPORTED)
def test_what_is_offered_is_used_by_another_module(module: str) -> None:
    """Not by tests alone: they may take any name of the module that they test."""
    names = set(offered(TREES[module]) or ())
    unused = {name for name in names if (module, name) not in USED} - ENTRY_POINTS.get(module, set())
    assert unused - interface_types(TREES[module]) == set()


@pytest.mark.parametrize("module", IMPORTED)
def test_what_is_used_is_offered(module: str) -> None:
    for used, name in uses(TREES[module]):
        if used != module and (names := offered(TREES[used])) is not None:
            assert name in names, f"{module} takes {name} out of {used}"


def defined(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Assign():
                yield from (each.id for each in node.targets if isinstance(each, ast.Name))
            case ast.AnnAssign() if isinstance(node.target, ast.Name):
                yield node.target.id


@pytest.mark.parametrize("module", IMPORTED)
def test_nothing_is_there_for_tests_only(module: str) -> None:
    """Every function, class and constant is used in ``src/``, if only in its own module."""
    tree = TREES[module]
    inside = {
        node.id if isinstance(node, ast.Name) else node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    known = inside | {name for used, name in USED if used == module} | ENTRY_POINTS.get(module, set())
    # Decorators may register a function under no name of ours.
    decorated = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list}
    unused = {name for name in defined(tree) if name not in known | decorated and not name.startswith("__")}
    assert unused == set()
