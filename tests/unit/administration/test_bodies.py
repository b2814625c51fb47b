"""What the console sends, read with care; and its trial's numbers."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from msgspec import Struct

from aiproject.adapters.http.fields import read_fields_as, reads
from aiproject.administration.bodies import (
    AddUser,
    AddVoucher,
    AuditQuery,
    DeleteUser,
    Filled,
    ModifyAdministrator,
    Switch,
    SwitchVoucher,
    TableQuery,
    TrialQuestion,
    Trimmed,
    Units,
)
from aiproject.administration.model import Malformed, NotPermitted, Role
from aiproject.administration.refusals import Refusals
from aiproject.administration.trial import trial_request
from aiproject.administration.users import NewProfile
from aiproject.codes import Code, Detail
from aiproject.errors import InvalidInput, NameTaken, NotFound
from aiproject.protocols.chat import ChatRequest

DIALOG = [{"role": "user", "content": "hi"}]
USER = {"username": "a", "password": "hunter2hunter2", "tokens": 1, "email": "", "pictimes": 1, "academy": None}


class Fields(Struct, kw_only=True):
    units: Units = 0
    filled: Filled = "x"
    trimmed: Trimmed = None
    switch: Switch = False


def read(**fields: object) -> Fields:
    return read_fields_as(Fields, fields)


@pytest.mark.parametrize(("value", "number"), [(0, 0), (5, 5), ("7", 7), (" 8 ", 8), (10**15, 10**15)])
def test_units(value: object, number: int) -> None:
    assert read(units=value).units == number


@pytest.mark.parametrize("value", [-1, 1.0, True, None, "", "x", "-1", "٣", "1" * 17, 10**15 + 1, [], {}])
def test_no_units(value: object) -> None:
    with pytest.raises(InvalidInput):
        read(units=value)


def test_units_may_have_a_default() -> None:
    new = {"token_name": "a", "token_range": ""}
    assert read_fields_as(AddVoucher, {**new, "token_limit": {}}).token_limit.tokens == 0
    bad: list[object] = [{"tokens": None}, [], None, "5"]
    for limit in bad:
        with pytest.raises(InvalidInput):
            read_fields_as(AddVoucher, {**new, "token_limit": limit})
    with pytest.raises(InvalidInput):
        read_fields_as(AddUser, {name: value for name, value in USER.items() if name != "tokens"})


def test_switches() -> None:
    values: list[object] = [1, "1", True, "true", 0, "0", False, "false"]
    assert [read(switch=each).switch for each in values] == [True] * 4 + [False] * 4
    odd: list[object] = [2, "yes", None, "", []]
    for value in odd:
        with pytest.raises(InvalidInput):
            read(switch=value)


def test_texts() -> None:
    assert read(filled=" x ").filled == " x "
    assert read(trimmed=" x ").trimmed == "x"
    assert read(trimmed="").trimmed is read(trimmed=None).trimmed is read().trimmed is None
    bad: list[dict[str, Any]] = [{}, {"target_username": None}, {"target_username": " "}, {"target_username": 5}]
    for fields in bad:
        with pytest.raises(InvalidInput):
            read_fields_as(DeleteUser, fields)
    with pytest.raises(InvalidInput):
        read(trimmed=5)


def test_a_field_that_may_be_empty_must_be_there_all_the_same() -> None:
    assert read_fields_as(AddUser, USER).email is None
    with pytest.raises(InvalidInput) as caught:
        read_fields_as(AddUser, {name: value for name, value in USER.items() if name != "email"})
    assert (caught.value.detail, caught.value.params) == (Detail.FIELD_MISSING, {"field": "email"})


def test_other_members_are_ignored() -> None:
    assert read_fields_as(DeleteUser, {"target_username": "a", "csrf": 1}).target_username == "a"


def test_roles() -> None:
    target = {"target_admin": "a"}
    assert read_fields_as(ModifyAdministrator, {**target, "new_role": " owner "}).new_role is Role.OWNER
    for empty in ("", " ", None):
        assert read_fields_as(ModifyAdministrator, {**target, "new_role": empty}).new_role is None
    for odd in ("king", 5):
        with pytest.raises(InvalidInput):
            read_fields_as(ModifyAdministrator, {**target, "new_role": odd})


def test_a_profile_never_shows_its_password() -> None:
    assert "hunter2" not in repr(NewProfile("a", "hunter2hunter2", "", None, 1, 1))


def test_numbers_of_a_query() -> None:
    wanted = read_fields_as(TableQuery, {"query_range": "007", "start": "9" * 12})
    assert (wanted.query_range, wanted.start) == (7, 2**31 - 1)
    for bad in ("", "-1", "1.0", "٣", "9" * 13):
        with pytest.raises(InvalidInput):
            read_fields_as(TableQuery, {"query_range": bad, "start": "0"})
    with pytest.raises(InvalidInput):
        read_fields_as(TableQuery, {"start": "0"})
    assert read_fields_as(SwitchVoucher, {"is_available": "1", "token_name": "a"}).is_available is True


def test_filters() -> None:
    wanted = read_fields_as(
        AuditQuery, {"since": "2026-01-01T00:00:00+08:00", "until": "5", "before": "7", "action": "user."}
    )
    assert (wanted.since, wanted.until, wanted.before, wanted.limit) == (1767196800000, 5, 7, 100)
    assert read_fields_as(AuditQuery, {"limit": "9999", "format": "?"}).limit == 500
    for bad in (
        {"since": "yesterday"},
        {"since": "2026-01-01"},
        {"before": "x"},
        {"actor": "\0"},
        {"actor": "x" * 300},
        {"limit": "0"},
    ):
        with pytest.raises(InvalidInput):
            read_fields_as(AuditQuery, bad)


def test_what_a_reader_makes_is_of_the_field_s_type() -> None:
    class Odd(Struct, kw_only=True):
        number: Annotated[int, reads(str)]

    with pytest.raises(InvalidInput):
        read_fields_as(Odd, {"number": 5})


def trial(dialog: object, limit: object, top_k: object, temperature: object) -> ChatRequest:
    fields = {"dialog": dialog, "limit": limit, "top_k": top_k, "temperature": temperature}
    return trial_request(read_fields_as(TrialQuestion, fields))


class TestTrial:
    @pytest.mark.parametrize(
        ("limit", "top_k", "temperature", "expected"),
        [
            (0, 0, 0, (1, 1, 0.01)),
            (8192, 10, 1, (8192, 6, 1.0)),
            pytest.param(10**400, 99, 5, (8192, 6, 1.0), id="a number that no float holds"),
            (100.7, 3.9, 0.5, (100, 3, 0.5)),
            (-5, -5, -5, (1, 1, 0.01)),
        ],
    )
    def test_bounds(self, limit: float, top_k: float, temperature: float, expected: tuple[int, int, float]) -> None:
        request = trial(DIALOG, limit, top_k, temperature)
        assert (request.max_tokens, request.top_k, request.temperature) == expected

    @pytest.mark.parametrize("bad", [None, "1", True, float("nan"), float("inf"), []])
    def test_numbers_that_are_none(self, bad: object) -> None:
        for numbers in ((bad, 1, 1), (1, bad, 1), (1, 1, bad)):
            with pytest.raises(InvalidInput):
                trial(DIALOG, *numbers)

    @pytest.mark.parametrize(
        "dialog",
        [None, [], "hi", [{}], [{"role": "king", "content": "x"}], [{"role": "user", "content": 5}], DIALOG * 2001,
         [{"role": "user", "content": "\ud800"}]],
    )  # fmt: skip
    def test_dialogs_that_are_none(self, dialog: object) -> None:
        with pytest.raises(InvalidInput):
            trial(dialog, 1, 1, 1)


class TestRefusals:
    REFUSALS = Refusals(
        (Code.ADD_USER_ERROR, Code.ADD_USER_ERROR), {NameTaken: (Code.USER_NAME_REPEAT, Code.USER_NAME_REPEAT)}
    )

    def test_known(self) -> None:
        assert self.REFUSALS.of(NameTaken()) == (Code.USER_NAME_REPEAT, "用户名已存在")

    def test_otherwise(self) -> None:
        malformed = Malformed(Detail.FIELD_MISSING, field="a")
        for error in (Malformed(), malformed, NotFound(), InvalidInput(Detail.VOUCHER_WORTH_NOTHING)):
            assert self.REFUSALS.of(error) == (Code.ADD_USER_ERROR, "添加用户失败")

    def test_a_reason_is_added(self) -> None:
        assert self.REFUSALS.of(InvalidInput(Detail.PASSWORD_COMMON)) == (
            Code.ADD_USER_ERROR,
            "添加用户失败：密码过于常见，请换一个",
        )

    def test_a_role_that_may_not(self) -> None:
        assert self.REFUSALS.of(NotPermitted()) == (Code.PERMISSION_NOT_ALLOW, "权限不足")
