"""A meter is declared in one place: one entry of the table, its columns and their migration make a whole meter.

The package is copied, a meter is added to the copy, and a life of it is led there by `later_meter`, in a process of its
own, since modules derive their constants from the table when they are imported.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import aiproject
from program import environment

TESTS = Path(__file__).parents[1]

ENTRY = """
    PAGES = (
        "pages",
        MeterSpec(
            balance="Pages",
            held="HeldPages",
            used="UsedPages",
            unit="page",
            field="pages",
            heading="pages",
            one=Words(" {n} 页", "{n} page"),
            many=Words(" {n} 页", "{n} pages"),
            basis=Words("按页", ", by the page"),
        ),
    )
"""

COLUMNS = """
    sa.Column("Pages", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("HeldPages", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("UsedPages", sa.BigInteger, nullable=False, server_default=sa.text("0")),
"""

MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "HEAD"


def upgrade():
    connection = op.get_bind()
    present = {column["name"] for column in sa.inspect(connection).get_columns("user")}
    for column in (COLUMNS):
        if column.name not in present:
            op.add_column("user", column)
    # API keys that exist have no limit of it, and what they spend is counted from now on.
    connection.execute(
        sa.text(
            "INSERT INTO spend_limit (key_id, capability) SELECT key_id, 'pages' FROM api_key WHERE NOT EXISTS ("
            "SELECT 1 FROM spend_limit AS s WHERE s.key_id = api_key.key_id AND s.capability = 'pages')"
        )
    )
"""


def test_one_entry_and_its_migration_make_a_meter(tmp_path: Path) -> None:
    sources = tmp_path / "aiproject"
    shutil.copytree(Path(aiproject.__file__).parent, sources, ignore=shutil.ignore_patterns("__pycache__"))
    database = tmp_path / "ledger.db"

    def live(*words: str) -> str:
        command = [sys.executable, str(TESTS / "later_meter.py"), f"sqlite:///{database}", *words]
        paths = f"{tmp_path}:{TESTS}"
        done = subprocess.run(
            command, env=environment() | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    assert live("before").endswith("lived before the upgrade\n")
    _insert(sources / "meters.py", before="    @property\n    def spec", text=ENTRY)
    _insert(sources / "adapters" / "db" / "schema.py", before='    sa.Column("LedgerSeq"', text=COLUMNS)
    versions = sources / "adapters" / "db" / "migrations" / "versions"
    head = max(path.name[1:5] for path in versions.glob("v*.py"))
    (versions / "v9999_pages.py").write_text(
        MIGRATION.replace("HEAD", head).replace("COLUMNS", COLUMNS.strip()), "utf-8"
    )
    assert live("after").endswith("lived after the upgrade\n")


def _insert(path: Path, *, before: str, text: str) -> None:
    source = path.read_text("utf-8")
    assert source.count(before) == 1
    path.write_text(source.replace(before, text.lstrip("\n") + before), "utf-8")
