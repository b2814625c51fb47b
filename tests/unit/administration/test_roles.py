"""Who may do what, as a rule."""

from __future__ import annotations

import pytest

from aiproject.administration.model import ALLOWED, Role, is_allowed


def test_an_auditor_changes_nothing_but_his_own_name_and_password() -> None:
    writing = {path for method, path in ALLOWED if method == "POST"} | {"/admin/control_token"}
    may = {path for (method, path), roles in ALLOWED.items() if Role.AUDITOR in roles and path in writing}
    assert may == {"/admin/modify_admin", "/admin/logout"}


def test_an_owner_may_everything() -> None:
    assert all(Role.OWNER in roles for roles in ALLOWED.values())


@pytest.mark.parametrize("role", list(Role))
def test_what_is_not_listed_is_refused(role: Role) -> None:
    for method, path in (
        ("GET", "/admin/"),
        ("POST", "/admin/query_table"),
        ("HEAD", "/admin/audit"),
        ("GET", "/v1/x"),
    ):
        assert not is_allowed(role, method, path)
