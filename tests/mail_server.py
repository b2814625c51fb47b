"""A real SMTP server of the tests' own, plain or by TLS, and the authority that signs its certificate."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Certificate", "MailBox", "make_certificate", "running_mail_server"]

LOGIN, PASSWORD = "postmaster", "päss:word/@"


@dataclass(frozen=True)
class Certificate:
    """Files in PEM.

    Attributes:
        ca_file: what a client has to trust.
        chain: the server's certificate and key.
    """

    ca_file: Path
    chain: Path


def make_certificate(directory: Path, *, host: str = "127.0.0.1") -> Certificate:
    """Make an authority of an hour's life, and a server's certificate signed by it."""
    now = datetime.now(UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def builder(subject: str) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("Test CA"))
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=1))
        )

    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    ca = (
        builder("Test CA")
        .public_key(ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    certificate = (
        builder("mail server")
        .public_key(key.public_key())
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    found = Certificate(directory / "ca.pem", directory / "server.pem")
    found.ca_file.write_bytes(ca.public_bytes(pem))
    found.chain.write_bytes(
        certificate.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return found


class MailBox:
    """What the server has been handed.

    Attributes:
        port: where it listens.
        letters: in order, each with its envelope's recipients.
        refusals: replies to give to the next letters instead of taking them.
        logins: names that logged in.
    """

    def __init__(self) -> None:
        self.port = 0
        self.letters: list[tuple[list[str], EmailMessage]] = []
        self.refusals: list[str] = []
        self.logins: list[str] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:  # noqa: N802 - the library's
        if self.refusals:
            return self.refusals.pop(0)
        letter = message_from_bytes(cast("bytes", envelope.content), policy=default)
        self.letters.append((list(envelope.rcpt_tos), letter))
        return "250 OK"

    def check(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        is_right = isinstance(data, LoginPassword) and data == LoginPassword(LOGIN.encode(), PASSWORD.encode())
        if is_right:
            self.logins.append(LOGIN)
        return AuthResult(success=is_right)

    def wait(self, count: int, *, seconds: float = 10.0) -> list[tuple[list[str], EmailMessage]]:
        """Wait until so many letters are there; return all."""
        deadline = time.monotonic() + seconds
        while len(self.letters) < count:
            assert time.monotonic() < deadline, f"{len(self.letters)} letters, not {count}"
            time.sleep(0.01)
        return self.letters


class _Controller(Controller):
    """The library's, on a port that the system chooses."""

    def _trigger_server(self) -> None:
        server: Any = self.server
        self.port = int(server.sockets[0].getsockname()[1])
        super()._trigger_server()  # type: ignore[no-untyped-call]


@contextmanager
def running_mail_server(
    certificate: Certificate | None = None, *, implicit_tls: bool = False, needs_login: bool = False
) -> Iterator[MailBox]:
    """Run a server on a loopback port.

    Args:
        certificate: for TLS; ``None``: the server knows no TLS.
        implicit_tls: TLS from the first byte; else by STARTTLS, without which nothing is taken.
        needs_login: letters are taken from `LOGIN` only.
    """
    box = MailBox()
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.chain)
    options: dict[str, Any] = {"ssl_context": context} if implicit_tls else {"tls_context": context}
    if context is not None and not implicit_tls:
        options["require_starttls"] = True
    if needs_login:
        options |= {"authenticator": box.check, "auth_required": True, "auth_require_tls": not implicit_tls}
    controller = _Controller(box, hostname="127.0.0.1", port=0, **options)
    controller.start()
    try:
        box.port = controller.port
        yield box
    finally:
        controller.stop()
