"""The two JWTs of an administrator's session, and the key that signs them.

HS256 with a key of our own and nothing else: the algorithm is fixed when a token is read, whatever its header says, so
that neither ``none`` nor a public key in the role of a secret is taken (RFC 8725, sections 2.1 and 3.1). The claims are
the original's, which other programs may read, and two of ours: ``aid``, the administrator's number, and ``sid``, the
session. ``sub`` is the name at the login; it is never looked up, so that the tokens of somebody who was renamed go on
working.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from aiproject.adapters.log import get_logger
from aiproject.administration.model import JwtRefused
from aiproject.codes import Detail
from aiproject.errors import Misconfigured

__all__ = ["SESSION_LIFETIME", "Claims", "Kind", "Signer", "bearer", "read_key"]

log = get_logger("administration")

ALGORITHM = "HS256"
KEY_FILE = "admin-jwt.key"

KEY_BYTES = 32
"""256 bits, as long as HS256's hash (RFC 7518, section 3.2)."""

MAX_KEY_BYTES = 4096

ACCESS_LIFETIME = timedelta(hours=1)
SESSION_LIFETIME = timedelta(days=30)
"""The original's: access an hour, refresh thirty days, after which one logs in again."""

LEEWAY = 10
"""Seconds by which the clocks of two nodes may differ."""

MAX_TOKEN_LENGTH = 4096

Kind = Literal["access", "refresh"]

WRONG_KIND: dict[Kind, Detail] = {
    "access": Detail.JWT_IS_REFRESH,
    "refresh": Detail.JWT_NOT_REFRESH,
}


@dataclass(frozen=True, slots=True)
class Claims:
    """What a good token says."""

    admin_id: int
    session_id: str


class Signer:
    """Makes and reads the tokens.

    Args:
        key: at least 32 bytes.
        clock: for what is made; what is read is judged by the system's.
    """

    def __init__(self, key: bytes, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        if len(key) < KEY_BYTES:
            raise ValueError("a key of fewer than 256 bits")
        self._key = key
        self._clock = clock

    def make(self, kind: Kind, claims: Claims, name: str, *, is_fresh: bool = False) -> str:
        """Return a token.

        Args:
            name: of the administrator, for ``sub``.
            is_fresh: whether a password was given for it just now.
        """
        now = self._clock()
        payload: dict[str, Any] = {
            "fresh": is_fresh,
            "iat": now,
            "jti": str(uuid.uuid4()),
            "type": kind,
            "sub": name,
            "nbf": now,
            "csrf": str(uuid.uuid4()),
            "exp": now + (ACCESS_LIFETIME if kind == "access" else SESSION_LIFETIME),
            "aid": claims.admin_id,
            "sid": claims.session_id,
        }
        import jwt  # PyJWT loads cryptography, 8 MB: with the first administrator

        return jwt.encode(payload, self._key, algorithm=ALGORITHM)

    def read(self, token: str, kind: Kind) -> Claims:
        """Return what a token says, if it is ours, valid now, and of this kind.

        Raises:
            JwtRefused: with the original's words where it has some.
        """
        import jwt

        if len(token) > MAX_TOKEN_LENGTH:
            raise JwtRefused(422, Detail.JWT_INVALID)
        try:
            payload = jwt.decode(
                token,
                self._key,
                algorithms=[ALGORITHM],
                leeway=LEEWAY,
                options={"require": ["exp", "iat", "nbf", "jti", "sub", "type", "aid", "sid"]},
            )
        except jwt.ExpiredSignatureError:
            raise JwtRefused(401, Detail.JWT_EXPIRED) from None
        except jwt.InvalidSignatureError:
            raise JwtRefused(422, Detail.JWT_SIGNATURE_WRONG) from None
        except jwt.InvalidAlgorithmError:
            raise JwtRefused(422, Detail.JWT_ALGORITHM_WRONG) from None
        except jwt.InvalidTokenError:
            # The library's own words may quote the token.
            detail = Detail.JWT_NOT_ENOUGH_SEGMENTS if token.count(".") < 2 else Detail.JWT_INVALID
            raise JwtRefused(422, detail) from None
        if payload["type"] != kind:
            raise JwtRefused(422, WRONG_KIND[kind])
        admin_id, session_id = payload["aid"], payload["sid"]
        if type(admin_id) is not int or type(session_id) is not str:
            raise JwtRefused(422, Detail.JWT_INVALID)
        return Claims(admin_id, session_id)


def bearer(header: str | None) -> str:
    """Return the token of an ``Authorization`` header.

    Raises:
        JwtRefused: there is none.
    """
    if header is None:
        raise JwtRefused(401, Detail.JWT_MISSING_HEADER)
    scheme, _, token = header.strip().partition(" ")
    if scheme.lower() != "bearer":
        raise JwtRefused(401, Detail.JWT_MISSING_BEARER)
    token = token.strip()
    if not token or " " in token:
        raise JwtRefused(422, Detail.JWT_BAD_HEADER)
    return token


def read_key(data_dir: Path, key_file: Path | None) -> bytes:
    """Return the signing key: of the file that the operator named, or our own, made at the first start.

    Several processes that start together agree on one: it is written whole under another name first, and takes its
    place only where there is none.

    Raises:
        Misconfigured: it cannot be read or made, or is too short.
    """
    path = key_file or data_dir / KEY_FILE
    try:
        if key_file is None and not path.exists():
            _make_key(path)
        with path.open("rb") as file:
            key = file.read(MAX_KEY_BYTES + 1).strip()
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except OSError as error:
        raise Misconfigured(Detail.ADMIN_KEY_UNREADABLE, path=str(path), reason=error.strerror or "") from None
    if not KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        raise Misconfigured(Detail.ADMIN_KEY_LENGTH, path=str(path), least=KEY_BYTES, most=MAX_KEY_BYTES)
    if mode & 0o077:
        log.warning("the key of administrators' tokens can be read by others", mode=f"{mode:o}")
    return key


def _make_key(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(KEY_BYTES).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was first: its key is the one
            os.link(draft, path)
    finally:
        draft.unlink()
