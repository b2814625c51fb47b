"""The revisions that are read from file names are those that Alembic reads from the scripts."""

from __future__ import annotations

from alembic.script import ScriptDirectory

from aiproject.adapters.db.migrations import alembic_config, revisions


def test_revisions_are_alembics() -> None:
    scripts = ScriptDirectory.from_config(alembic_config())
    assert revisions() == [script.revision for script in scripts.walk_revisions()][::-1]
    assert revisions()[-1] == scripts.get_current_head()
