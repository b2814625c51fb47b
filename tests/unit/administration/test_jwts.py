"""Tokens and their key. (Forgeries are tried over HTTP: `tests/system/test_admin_roles.py`.)"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier, Thread

import pytest

from aiproject.administration.jwts import KEY_FILE, Claims, Kind, Signer, bearer, read_key
from aiproject.administration.model import JwtRefused
from aiproject.errors import Misconfigured
from aiproject.messages.formatting import Language, format_error

KEY = b"k" * 32
CLAIMS = Claims(7, "session")


def refusal(signer: Signer, token: str, kind: str = "access") -> tuple[int, str]:
    with pytest.raises(JwtRefused) as caught:
        signer.read(token, "access" if kind == "access" else "refresh")
    return caught.value.status, format_error(caught.value, Language.ZH)


class TestTokens:
    def test_round_trip(self) -> None:
        signer = Signer(KEY)
        assert signer.read(signer.make("access", CLAIMS, "小明"), "access") == CLAIMS
        assert signer.read(signer.make("refresh", CLAIMS, "小明"), "refresh") == CLAIMS

    def test_each_for_its_own_purpose(self) -> None:
        signer = Signer(KEY)
        assert refusal(signer, signer.make("refresh", CLAIMS, "x")) == (422, "Only non-refresh tokens are allowed")
        told = refusal(signer, signer.make("access", CLAIMS, "x"), "refresh")
        assert told == (422, "Only refresh tokens are allowed")

    @pytest.mark.parametrize(("kind", "lifetime"), [("access", timedelta(hours=1)), ("refresh", timedelta(days=30))])
    def test_lifetimes(self, kind: str, lifetime: timedelta) -> None:
        now = datetime.now(UTC)
        word: Kind = "access" if kind == "access" else "refresh"
        for age, is_over in ((lifetime - timedelta(minutes=1), False), (lifetime + timedelta(minutes=1), True)):
            token = Signer(KEY, clock=lambda age=age: now - age).make(word, CLAIMS, "x")  # type: ignore[misc]
            if is_over:
                assert refusal(Signer(KEY), token, kind) == (401, "Token has expired")
            else:
                assert Signer(KEY).read(token, word) == CLAIMS

    def test_two_nodes_clocks_may_differ_a_little(self) -> None:
        ahead = Signer(KEY, clock=lambda: datetime.now(UTC) + timedelta(seconds=5))
        assert Signer(KEY).read(ahead.make("access", CLAIMS, "x"), "access") == CLAIMS
        far = Signer(KEY, clock=lambda: datetime.now(UTC) + timedelta(minutes=5))
        assert refusal(Signer(KEY), far.make("access", CLAIMS, "x"))[0] == 422

    @pytest.mark.parametrize(
        ("token", "msg"),
        [
            ("null", "Not enough segments"),
            ("", "Not enough segments"),
            ("a.b", "Not enough segments"),
            ("a.b.c", "Invalid token"),
            ("...", "Invalid token"),
            ("\xff.\xff.\xff", "Invalid token"),
            ("x" * 10_000, "Invalid token"),
        ],
    )
    def test_garbage(self, token: str, msg: str) -> None:
        assert refusal(Signer(KEY), token) == (422, msg)

    def test_a_short_key_signs_nothing(self) -> None:
        with pytest.raises(ValueError, match="256 bits"):
            Signer(b"k" * 31)


class TestBearer:
    def test_the_token(self) -> None:
        assert bearer("Bearer abc") == bearer("bearer  abc ") == "abc"

    @pytest.mark.parametrize(
        ("header", "status"),
        [(None, 401), ("", 401), ("Basic x", 401), ("abc", 401), ("Bearer", 422), ("Bearer a b", 422)],
    )
    def test_refusals(self, header: str | None, status: int) -> None:
        with pytest.raises(JwtRefused) as caught:
            bearer(header)
        assert caught.value.status == status


class TestKey:
    def test_made_once_and_for_its_owner_only(self, tmp_path: Path) -> None:
        folder = tmp_path / "data"
        key = read_key(folder, None)
        assert len(bytes.fromhex(key.decode())) == 32
        assert read_key(folder, None) == key
        assert (folder / KEY_FILE).stat().st_mode & 0o777 == 0o600
        assert [path.name for path in folder.iterdir()] == [KEY_FILE]

    def test_many_who_start_together_agree(self, tmp_path: Path) -> None:
        keys, barrier = [], Barrier(8)

        def start() -> None:
            barrier.wait()
            keys.append(read_key(tmp_path, None))

        threads = [Thread(target=start) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(keys) == 8
        assert len(set(keys)) == 1
        assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]

    def test_one_s_own_file(self, tmp_path: Path) -> None:
        path = tmp_path / "own"
        path.write_bytes(b"a" * 40 + b"\n")
        path.chmod(0o600)
        assert read_key(tmp_path / "nowhere", path) == b"a" * 40
        assert not (tmp_path / "nowhere").exists()

    @pytest.mark.parametrize("content", [b"", b"too few bytes", b"x" * 5000])
    def test_a_bad_one_is_said(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "own"
        path.write_bytes(content)
        with pytest.raises(Misconfigured) as caught:
            read_key(tmp_path, path)
        assert not content or content.decode() not in str(caught.value)

    def test_a_missing_one_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(Misconfigured, match="ADMIN_KEY_UNREADABLE"):
            read_key(tmp_path, tmp_path / "missing")

    def test_one_that_others_read_is_warned_of(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "own"
        path.write_bytes(b"a" * 40)
        path.chmod(0o644)
        read_key(tmp_path, path)
        assert "can be read by others" in capsys.readouterr().out + str(logging.root)
