"""What the console sends, read with care; and its trial's numbers."""

from __future__ import annotations

import pytest

from aiproject.administration.fields import audit_filter, flag, optional_text, parsed, profile, required_text, units
from aiproject.administration.model import Malformed, NotPermitted
from aiproject.administration.refusals import Refusals
from aiproject.administration.trial import trial_request
from aiproject.codes import Code, Detail
from aiproject.errors import InvalidInput, NameTaken, NotFound

DIALOG = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(("value", "number"), [(0, 0), (5, 5), ("7", 7), (" 8 ", 8), (10**15, 10**15)])
def test_units(value: object, number: int) -> None:
    assert units({"n": value}, "n") == number


@pytest.mark.parametrize("value", [-1, 1.0, True, None, "", "x", "-1", "٣", "1" * 17, 10**15 + 1, [], {}])
def test_no_units(value: object) -> None:
    with pytest.raises(Malformed):
        units({"n": value}, "n")


def test_units_may_have_a_default() -> None:
    assert units({}, "n", default=0) == 0
    with pytest.raises(Malformed):
        units({}, "n")


def test_flags() -> None:
    assert [flag(each) for each in (1, "1", True, 0, "0", False)] == [True] * 3 + [False] * 3
    odd: list[object] = [2, "yes", None, "", []]
    for value in odd:
        with pytest.raises(Malformed):
            flag(value)


def test_texts() -> None:
    assert required_text({"a": " x "}, "a") == " x "
    assert optional_text({"a": " x "}, "a") == "x"
    assert optional_text({"a": ""}, "a") is optional_text({}, "a") is None
    bad: list[dict[str, object]] = [{}, {"a": None}, {"a": " "}, {"a": 5}]
    for fields in bad:
        with pytest.raises(Malformed):
            required_text(fields, "a")
    with pytest.raises(Malformed):
        optional_text({}, "a", must_be_there=True)
    with pytest.raises(Malformed):
        parsed([])


def test_a_profile_never_shows_its_password() -> None:
    fields = {"username": "a", "password": "hunter2hunter2", "tokens": 1, "email": "", "pictimes": 1, "academy": None}
    assert "hunter2" not in repr(profile(fields, ""))


def test_filters() -> None:
    wanted = audit_filter({"since": "2026-01-01T00:00:00+08:00", "until": "5", "before": "7", "action": "user."})
    assert (wanted.since, wanted.until, wanted.before_seq) == (1767196800000, 5, 7)
    for bad in (
        {"since": "yesterday"},
        {"since": "2026-01-01"},
        {"before": "x"},
        {"actor": "\0"},
        {"actor": "x" * 300},
    ):
        with pytest.raises(Malformed):
            audit_filter(bad)


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
        request = trial_request(DIALOG, limit, top_k, temperature)
        assert (request.max_tokens, request.top_k, request.temperature) == expected

    @pytest.mark.parametrize("bad", [None, "1", True, float("nan"), float("inf"), []])
    def test_numbers_that_are_none(self, bad: object) -> None:
        for numbers in ((bad, 1, 1), (1, bad, 1), (1, 1, bad)):
            with pytest.raises(InvalidInput):
                trial_request(DIALOG, *numbers)

    @pytest.mark.parametrize(
        "dialog",
        [None, [], "hi", [{}], [{"role": "king", "content": "x"}], [{"role": "user", "content": 5}], DIALOG * 2001,
         [{"role": "user", "content": "\ud800"}]],
    )  # fmt: skip
    def test_dialogs_that_are_none(self, dialog: object) -> None:
        with pytest.raises(InvalidInput):
            trial_request(dialog, 1, 1, 1)


class TestRefusals:
    REFUSALS = Refusals(
        (Code.ADD_USER_ERROR, Code.ADD_USER_ERROR), {NameTaken: (Code.USER_NAME_REPEAT, Code.USER_NAME_REPEAT)}
    )

    def test_known(self) -> None:
        assert self.REFUSALS.of(NameTaken()) == (Code.USER_NAME_REPEAT, "用户名已存在")

    def test_otherwise(self) -> None:
        for error in (Malformed(), NotFound(), InvalidInput(Detail.VOUCHER_WORTH_NOTHING)):
            assert self.REFUSALS.of(error) == (Code.ADD_USER_ERROR, "添加用户失败")

    def test_a_reason_is_added(self) -> None:
        assert self.REFUSALS.of(InvalidInput(Detail.PASSWORD_COMMON)) == (
            Code.ADD_USER_ERROR,
            "添加用户失败：密码过于常见，请换一个",
        )

    def test_a_role_that_may_not(self) -> None:
        assert self.REFUSALS.of(NotPermitted()) == (Code.PERMISSION_NOT_ALLOW, "权限不足")
