"""The key pair that signs checkpoints: Ed25519, made at the first use, in the data directory."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from aiproject.codes import Detail
from aiproject.errors import Misconfigured

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["PRIVATE_FILE", "PUBLIC_FILE", "private_key", "public_key", "public_text"]

PRIVATE_FILE = "ledger-checkpoint.key"
PUBLIC_FILE = "ledger-checkpoint.pub"


def private_key(data_dir: Path) -> Ed25519PrivateKey:
    """Return the key of this data directory; make it where there is none, with its public half beside it.

    Processes that start together agree on one.

    Raises:
        Misconfigured: it cannot be read or made, or the public half is another key's.
    """
    # Here and below, not above: the library takes 8 MB, of every process that ever imports this module.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    path = data_dir / PRIVATE_FILE
    try:
        if not path.exists():  # do not draw a key in vain
            text = Ed25519PrivateKey.generate().private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            )  # fmt: skip
            _create(path, text, 0o600)
        key = load_pem_private_key(path.read_bytes(), None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError
        _create(data_dir / PUBLIC_FILE, public_text(key.public_key()).encode("ascii"), 0o644)
    except OSError as error:
        raise Misconfigured(Detail.CHECKPOINT_KEY_UNREADABLE, path=str(path), reason=error.strerror or "") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Misconfigured(Detail.CHECKPOINT_KEY_NOT_PRIVATE, path=str(path)) from None
    if public_text(public_key(data_dir / PUBLIC_FILE)) != public_text(key.public_key()):
        raise Misconfigured(Detail.CHECKPOINT_KEYS_NO_PAIR, path=str(path), public=PUBLIC_FILE)
    return key


def public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key.

    Raises:
        Misconfigured: there is none in this file.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise Misconfigured(
            Detail.CHECKPOINT_PUBLIC_KEY_UNREADABLE, path=str(path), reason=error.strerror or ""
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise Misconfigured(Detail.CHECKPOINT_KEY_NOT_PUBLIC, path=str(path))
    return key


def public_text(key: Ed25519PublicKey) -> str:
    """Return a public key as it stands in its file: PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def _create(path: Path, data: bytes, mode: int) -> None:
    """Write a file whole, unless it is there already."""
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    try:
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
