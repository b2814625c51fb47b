"""The file format of checkpoints: the heads of all chains at one time, signed.

A chain of hashes shows edits, but whoever can write the whole table can write another chain, or cut its end off. A
checkpoint that is kept elsewhere shows that: each chain must still hold the head that it had then.

The file is JSON lines in ASCII:

1. ``{"format":"aiproject ledger checkpoint 1","written_at":…,"audit":[seq,hash]}``, times in milliseconds since 1970;
2. ``[account_id,seq,hash]`` for each account, in the order of their numbers; an account without entries has seq 0;
3. ``{"accounts":…,"sha256":…,"signature":…}``: SHA-256 in hexadecimal of all lines before, and in Base64 the Ed25519
   signature (RFC 8032) of ``aiproject ledger checkpoint 1``, a line feed, and that SHA-256 as it stands there.

Files are written and read a piece at a time: a million accounts are about 100 MB.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from aiproject.codes import Detail
from aiproject.errors import InvalidInput

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["CheckpointReader", "CheckpointWriter", "Head", "Signed"]

FORMAT = "aiproject ledger checkpoint 1"

MAX_LINE_BYTES = 1000
"""Of the longest line, the last, which has about 250: what is longer is no checkpoint and is not read into memory."""


class Head(NamedTuple):
    """The newest entry of a chain.

    Attributes:
        account_id: whose ledger; 0 stands for the audit log.
        seq: its number; 0: the chain is empty, and the hash too.
    """

    account_id: int
    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class Signed:
    """What was written, in the few words that fit into a log."""

    path: Path
    accounts: int
    audit: Head
    digest: str
    signature: str


class CheckpointWriter:
    """Writes a checkpoint beside its place; `finish` signs it and moves it there, `discard` drops what there is.

    Raises:
        OSError: from each method, for what the disk says.
    """

    def __init__(self, path: Path, audit: Head, written_at: int) -> None:
        self._path = path
        self._audit = audit
        self._draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        self._digest = hashlib.sha256()
        self._accounts = 0
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.fdopen(os.open(self._draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._write(_line({"format": FORMAT, "written_at": written_at, "audit": [audit.seq, audit.hash]}))

    def add(self, heads: Iterable[Head]) -> None:
        """Write heads, which follow in the order of accounts."""
        lines = [_line(head) for head in heads]
        self._accounts += len(lines)
        self._write(b"".join(lines))

    def finish(self, key: Ed25519PrivateKey) -> Signed:
        """Sign the file, make sure that it is on the disk, and give it its name."""
        digest = self._digest.hexdigest()
        signature = base64.b64encode(key.sign(_signed_text(digest))).decode()
        self._file.write(_line({"accounts": self._accounts, "sha256": digest, "signature": signature}))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._draft.replace(self._path)
        return Signed(self._path, self._accounts, self._audit, digest, signature)

    def discard(self) -> None:
        """Remove what was written, unless it is finished."""
        self._file.close()
        self._draft.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)


class CheckpointReader:
    """A checkpoint whose signature has been checked.

    Attributes:
        written_at: milliseconds since 1970, by the clock of the machine that wrote it.
        audit: head of the audit log.
        accounts: how many have a head.

    Raises:
        InvalidInput: it is no checkpoint, or not signed with this key.
    """

    def __init__(self, file: BinaryIO, key: Ed25519PublicKey) -> None:
        self._file = file
        self._check_signature(key)
        file.seek(0)
        header = _value(file.readline(MAX_LINE_BYTES))
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise InvalidInput(Detail.CHECKPOINT_NOT_ONE)
        self.audit = _head([0, *header.get("audit", ())])
        self.written_at = int(header["written_at"])

    def heads(self) -> Iterator[Head]:
        """Yield the accounts' heads, once."""
        for line in _lines(self._file):
            value = _value(line)
            if isinstance(value, dict):  # the signature, which is the last line
                return
            yield _head(value)

    def _check_signature(self, key: Ed25519PublicKey) -> None:
        from cryptography.exceptions import InvalidSignature

        digest, last, count = hashlib.sha256(), b"", 0
        for count, line in enumerate(_lines(self._file), 1):  # noqa: B007 - used behind the loop
            digest.update(last)
            last = line
        end = _value(last)
        if not isinstance(end, dict) or end.get("sha256") != digest.hexdigest():
            raise InvalidInput(Detail.CHECKPOINT_HASH_DIFFERS)
        self.accounts = count - 2  # the header and this line are none
        if end.get("accounts") != self.accounts:
            raise InvalidInput(Detail.CHECKPOINT_COUNT_DIFFERS)
        try:
            key.verify(base64.b64decode(str(end.get("signature"))), _signed_text(digest.hexdigest()))
        except (InvalidSignature, ValueError):
            raise InvalidInput(Detail.CHECKPOINT_SIGNATURE_WRONG) from None


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE_BYTES):
        if not line.endswith(b"\n"):
            raise InvalidInput(Detail.CHECKPOINT_CUT_SHORT)
        yield line


def _line(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"


def _value(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise InvalidInput(Detail.CHECKPOINT_NOT_ONE) from None


def _head(value: Any) -> Head:
    if isinstance(value, list) and list(map(type, value)) == [int, int, str]:
        return Head(*value)
    raise InvalidInput(Detail.CHECKPOINT_NOT_ONE)


def _signed_text(digest: str) -> bytes:
    return f"{FORMAT}\n{digest}".encode("ascii")
