"""Passwords: today's form, the original's forms, and a pool that does not drown."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
from collections.abc import Callable

import argon2
import pytest
from argon2.profiles import CHEAPEST
from hypothesis import given
from hypothesis import strategies as st

from aiproject.adapters.passwords import (
    AT_THE_DATABASE,
    DEFAULT_PROFILE,
    UNUSABLE_PASSWORD,
    PasswordHasher,
    PasswordService,
    Verdict,
)
from aiproject.errors import InvalidInput, TooManyRequests, Unavailable

RIGHT = Verdict(ok=True, needs_rehash=False)
RIGHT_BUT_OLD = Verdict(ok=True, needs_rehash=True)
WRONG = Verdict(ok=False, needs_rehash=False)

hasher = PasswordHasher(CHEAPEST)


def md5_of_the_original(password: str) -> str:
    return hashlib.md5(f"{password}#_#".encode(), usedforsecurity=False).hexdigest()


class TestArgon2:
    def test_the_default_is_the_low_memory_profile_of_rfc_9106(self) -> None:
        assert (DEFAULT_PROFILE.time_cost, DEFAULT_PROFILE.memory_cost, DEFAULT_PROFILE.parallelism) == (3, 65536, 4)
        assert DEFAULT_PROFILE.type is argon2.Type.ID

    def test_a_hash_fits_its_column_and_verifies(self) -> None:
        stored = PasswordHasher().hash("correct horse")
        assert stored.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
        assert len(stored) < 255
        assert PasswordHasher().verify(stored, "correct horse") == RIGHT

    @given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200), st.text())
    def test_only_the_password_itself_is_right(self, password: str, other: str) -> None:
        stored = hasher.hash(password)
        assert hasher.verify(stored, password) == RIGHT
        assert hasher.verify(stored, password + "x") == WRONG

    def test_compatibility_forms_are_one_password(self) -> None:
        assert hasher.verify(hasher.hash("Ｐａｓｓword"), "Password") == RIGHT

    def test_weaker_parameters_ask_for_a_new_hash(self) -> None:
        assert PasswordHasher().verify(hasher.hash("pass"), "pass") == RIGHT_BUT_OLD
        assert PasswordHasher().verify(hasher.hash("pass"), "word") == WRONG

    @pytest.mark.parametrize("password", ["", "\ud800", "x" * 4097, "王" * 2000])
    def test_what_cannot_be_a_password(self, password: str) -> None:
        with pytest.raises(InvalidInput):
            hasher.hash(password)
        for stored in (hasher.hash("pass"), password, md5_of_the_original("pass")):
            assert hasher.verify(stored, password) == WRONG

    @given(st.text())
    def test_a_mangled_hash_matches_nothing(self, tail: str) -> None:
        for stored in ("$argon2" + tail, hasher.hash("pass")[:-5] + tail[:2]):
            assert hasher.verify(stored, "pass") == WRONG
            assert hasher.verify(stored, stored) == WRONG


class TestTheOriginalsForms:
    def test_md5_with_the_suffix(self) -> None:
        stored = "fde07a4c28c40938bcccd67b625e510d"  # of "123456#_#", reckoned by coreutils' md5sum
        for spelling in (stored, stored.upper()):
            assert hasher.verify(spelling, "123456") == RIGHT_BUT_OLD
            assert hasher.verify(spelling, "654321") == WRONG
        assert hasher.verify(md5_of_the_original("密码").upper(), "密码") == RIGHT_BUT_OLD

    def test_plain_text(self) -> None:
        assert hasher.verify("hunter2", "hunter2") == RIGHT_BUT_OLD
        assert hasher.verify("密码", "密码") == RIGHT_BUT_OLD
        assert hasher.verify("hunter2", "Hunter2") == WRONG

    @pytest.mark.parametrize(
        "stored",
        [
            md5_of_the_original("pass"),
            md5_of_the_original("pass").upper(),
            pytest.param(hasher.hash("pass"), id="ours"),  # salted: another text in each of pytest's processes
            "$2b$12$abcdefghijklmnopqrstuv",
            UNUSABLE_PASSWORD,
            "",
        ],
    )
    def test_who_stole_a_stored_form_cannot_log_in_by_it(self, stored: str) -> None:
        assert hasher.verify(stored, stored) == WRONG

    @given(st.text(max_size=60), st.text(max_size=60))
    def test_nothing_crashes_it(self, stored: str, password: str) -> None:
        verdict = hasher.verify(stored, password)
        assert verdict in (WRONG, RIGHT_BUT_OLD)
        if verdict.ok:
            assert stored == password


class TestEveryCheckTakesOneArgon2:
    """Who measures time learns neither whether an account exists nor how its password is stored."""

    @pytest.mark.parametrize(
        "stored",
        [
            "plain",
            md5_of_the_original("x"),
            "",
            "$argon2id$cut",
            pytest.param(hasher.hash("x"), id="ours"),
            None,
        ],
    )
    @pytest.mark.parametrize("password", ["plain", "x", "other", "\ud800"])
    def test_whatever_is_stored_and_given(
        self, stored: str | None, password: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runs = 0

        def counting(original: Callable[..., object]) -> Callable[..., object]:
            def count(*arguments: object, **options: object) -> object:
                nonlocal runs
                try:
                    result = original(*arguments, **options)
                except argon2.exceptions.VerifyMismatchError:
                    runs += 1
                    raise
                runs += 1  # and not if a mangled hash was refused without any work
                return result

            return count

        with monkeypatch.context() as patch:
            for name in ("hash_secret", "verify_secret"):
                patch.setattr(f"argon2._password_hasher.{name}", counting(getattr(argon2.low_level, name)))
            if stored is None:
                hasher.dummy_verify()
            else:
                hasher.verify(stored, password)
        assert runs == 1


class SlowHasher(PasswordHasher):
    """Works until it is let go."""

    def __init__(self) -> None:
        super().__init__(CHEAPEST)
        self.go_on = threading.Event()

    def hash(self, password: str) -> str:
        assert self.go_on.wait(10)
        return super().hash(password)


class TestService:
    async def test_hashes_and_verifies_beside_the_loop(self) -> None:
        service = PasswordService(hasher)
        try:
            stored = await service.hash("pass")
            assert await service.verify(stored, "pass") == RIGHT
            await service.dummy_verify()
        finally:
            await service.close()

    async def test_a_full_queue_refuses_and_recovers(self) -> None:
        slow = SlowHasher()
        service = PasswordService(slow, threads=1, queue=2)
        try:
            waiting = [asyncio.create_task(service.hash("pass")) for _ in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(TooManyRequests) as caught:
                await service.hash("pass")
            assert caught.value.retry_after >= 1
            slow.go_on.set()
            await asyncio.gather(*waiting)
            assert await service.hash("pass")
        finally:
            slow.go_on.set()
            await service.close()

    async def test_who_hangs_up_frees_no_place_before_the_work_is_done(self) -> None:
        slow = SlowHasher()
        service = PasswordService(slow, threads=1, queue=0)
        try:
            task = asyncio.create_task(service.hash("pass"))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(TooManyRequests):
                await service.verify("a", "b")
            slow.go_on.set()
            for _ in range(100):
                await asyncio.sleep(0.02)
                try:
                    await service.hash("pass")
                except TooManyRequests:
                    continue
                break
            else:
                pytest.fail("the place was never freed")
        finally:
            slow.go_on.set()
            await service.close()

    async def test_an_address_fills_half_of_the_queue_and_others_take_turns_with_it(self) -> None:
        """Else a burst of logins from one address keeps everybody out until it is worked off."""
        service = PasswordService(hasher, threads=1, queue=7)
        served: list[str] = []
        one_at_a_time = asyncio.Lock()

        async def login(address: str) -> None:
            with service.place(address):
                async with service.turn(address), one_at_a_time:
                    await asyncio.sleep(0)
                    served.append(address)

        try:
            # Another network of the same IPv6 site is the same.
            burst = [asyncio.create_task(login(f"2001:db8:0:{number}::1")) for number in range(4)]
            await asyncio.sleep(0)
            with pytest.raises(TooManyRequests):
                await login("2001:db8::ffff")
            burst += [asyncio.create_task(login("192.0.2.2")) for _ in range(3)]
            await asyncio.sleep(0)
            await asyncio.gather(login("192.0.2.3"), *burst)
            assert len(served) == 8
            await login("2001:db8::ffff")
        finally:
            await service.close()

    async def test_nobody_waits_behind_the_whole_burst_of_another_address(self) -> None:
        service = PasswordService(hasher, threads=1, queue=200)
        served: list[str] = []

        async def login(address: str) -> None:
            with service.place(address):
                async with service.turn(address):
                    await asyncio.sleep(0.001)
                    served.append(address)

        try:
            burst = [asyncio.create_task(login("192.0.2.1")) for _ in range(100)]
            await asyncio.sleep(0)
            await login("192.0.2.2")
            assert len(served) <= 2 * (1 + AT_THE_DATABASE) + 1
            await asyncio.gather(*burst)
        finally:
            await service.close()

    async def test_where_all_share_an_address_it_may_fill_the_queue(self) -> None:
        service = PasswordService(hasher, threads=1, queue=3, tells_addresses_apart=False)
        try:
            with contextlib.ExitStack() as places:
                for _ in range(4):
                    places.enter_context(service.place("192.0.2.1"))
                with pytest.raises(TooManyRequests):
                    places.enter_context(service.place("192.0.2.1"))
        finally:
            await service.close()

    async def test_closed_is_closed(self) -> None:
        service = PasswordService(hasher)
        await service.close()
        with pytest.raises(Unavailable):
            await service.hash("pass")
