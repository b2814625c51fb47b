"""Sending of plain-text e-mail through an SMTP server, from a bounded queue.

Passwords and e-mails cross a network only over TLS with a verified certificate: ``smtps://`` from the first byte,
``smtp://`` with STARTTLS, without which nothing is sent. On a loopback address ``smtp://`` uses no encryption.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from email.errors import HeaderParseError, MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import formatdate, getaddresses, make_msgid
from enum import StrEnum
from urllib.parse import parse_qs, unquote, urlsplit

from aiproject.adapters.log import get_logger
from aiproject.codes import Detail
from aiproject.errors import AiProjectError, Misconfigured, Unavailable

__all__ = ["Email", "MailQueue", "MailServer", "Mailer", "NotMailable", "Security", "mailable", "parse_smtp_url"]

log = get_logger("mail")

STEP_SECONDS = 15.0
"""Seconds for each step of the SMTP session, including the connection and its handshake."""

SPECIAL = re.compile(r"""[\s"(),:;<>\[\]\\]""")

MAX_ADDRESS = 254
"""Characters; the maximum of SMTP (RFC 5321, section 4.5.3.1.3, without the brackets)."""

LETTER_SECONDS = 60.0
"""Seconds for one attempt to send an e-mail."""

RETRY_PAUSES = (2.0, 15.0)
"""Seconds between the attempts to send an e-mail that the server may accept later."""

OUTBOX_SIZE = 200
"""Maximum number of waiting e-mails and requests for one; further ones are refused."""

OUTBOX_WORKERS = 2

CLOSING_SECONDS = 5.0
"""Seconds that e-mails in progress get when the server stops."""


class NotMailable(AiProjectError):
    """The text is not an address to which mail can be sent."""


class Security(StrEnum):
    """How the connection to a mail server is protected."""

    TLS = "tls"
    STARTTLS = "starttls"
    NONE = "none"


@dataclass(frozen=True, slots=True, repr=False)
class MailServer:
    """The SMTP server to which mail is submitted.

    Attributes:
        username: empty: no login.
        ca_file: certificates to trust in place of the system's; ``None``: the system's.
    """

    host: str
    port: int
    security: Security
    username: str = ""
    password: str = ""
    ca_file: str | None = None

    def __repr__(self) -> str:
        return f"MailServer({self.host!r}, {self.port}, {self.security})"


@dataclass(frozen=True, slots=True, repr=False)
class Email:
    """An e-mail without the header fields that the mailer adds."""

    to: str
    subject: str
    text: str

    def __repr__(self) -> str:
        return f"Letter({self.subject!r})"


def parse_smtp_url(text: str) -> MailServer:
    """Parse a mail server's URL: ``smtp://user:password@host:587`` or ``smtps://user:password@host:465``.

    ``?ca_file=/path`` names certificates to trust in place of the system's; with it, STARTTLS is required on a loopback
    address as well.

    Raises:
        Misconfigured: it is not such a URL; the message never quotes it, since it may contain a password.
    """
    try:
        parts = urlsplit(text.strip())
        options = parse_qs(parts.query, strict_parsing=bool(parts.query))
        port = parts.port
    except ValueError:
        raise Misconfigured(Detail.SMTP_NOT_URL) from None
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise Misconfigured(Detail.SMTP_SCHEME_WRONG)
    if parts.path not in ("", "/") or parts.fragment or set(options) - {"ca_file"}:
        raise Misconfigured(Detail.SMTP_OPTION_UNKNOWN)
    ca_file = options.get("ca_file", [None])[-1]
    if parts.scheme == "smtps":
        security = Security.TLS
    else:
        security = Security.NONE if _is_loopback(parts.hostname) and ca_file is None else Security.STARTTLS
    return MailServer(
        parts.hostname,
        port or (465 if security is Security.TLS else 587),
        security,
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        ca_file,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def mailable(text: str) -> str:
    """Return an address in the form used for sending, with its domain in ASCII.

    Raises:
        NotMailable: it is not an address, or the part before the ``@`` is not ASCII, which few servers support.
    """
    local, _, domain = text.strip().rpartition("@")
    # Quoted strings, comments and lists are valid in a header field, but do not occur in users' addresses.
    if not local or not domain or SPECIAL.search(text.strip()):
        raise NotMailable("not an address")
    try:
        found = str(Address(addr_spec=f"{local}@{domain.encode('idna').decode('ascii')}").addr_spec)
    except (HeaderParseError, MessageError, ValueError, IndexError, AttributeError):
        raise NotMailable("not an address") from None
    if not found.isascii() or not found.isprintable() or found.count("@") != 1 or len(found) > MAX_ADDRESS:
        raise NotMailable("not an address")
    return found


class Mailer:
    """Sends e-mails from one sender through one server.

    Args:
        server: the SMTP server.
        sender: an address, optionally with a name: ``AiProject <noreply@example.com>``.

    Raises:
        Misconfigured: the sender is not an address, or the certificate file cannot be read.
    """

    def __init__(self, server: MailServer, sender: str) -> None:
        self._server = server
        try:
            found = getaddresses([sender]) if sender.isprintable() else []
            name, address = found[0] if len(found) == 1 else ("", "")
            self._sender = Address(display_name=name, addr_spec=mailable(address))
        except (NotMailable, MessageError, ValueError):
            raise Misconfigured(Detail.MAIL_FROM_NOT_ADDRESS) from None
        try:
            self._tls = ssl.create_default_context(cafile=server.ca_file)
        except (OSError, ssl.SSLError):
            raise Misconfigured(Detail.SMTP_CA_FILE_UNREADABLE) from None

    async def send(self, letter: Email) -> None:
        """Submit an e-mail to the server.

        Raises:
            NotMailable: the address is invalid, or the server rejects the e-mail permanently.
            Unavailable: the server cannot be reached, is not trusted, or may accept the e-mail later.
        """
        import aiosmtplib  # imported with the first e-mail, since most installations send none

        message = self._message(letter)
        server = self._server
        smtp = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            timeout=STEP_SECONDS,
            use_tls=server.security is Security.TLS,
            start_tls=server.security is Security.STARTTLS,
            tls_context=None if server.security is Security.NONE else self._tls,
            local_hostname=self._sender.domain,
        )
        try:
            async with asyncio.timeout(LETTER_SECONDS):
                try:
                    await smtp.connect()
                    if server.username:
                        await smtp.login(server.username, server.password)
                    await smtp.send_message(message)
                    with contextlib.suppress(aiosmtplib.SMTPException):
                        await smtp.quit()  # the server has already accepted the e-mail
                finally:
                    smtp.close()
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise _refusal([refused.code for refused in error.recipients]) from None
        except aiosmtplib.SMTPAuthenticationError as error:
            raise Unavailable(f"the mail server refuses our login ({error.code})") from None
        except aiosmtplib.SMTPResponseException as error:
            raise _refusal([error.code]) from None
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            # The error's text may quote the server, so only its class is reported.
            raise Unavailable(f"the mail server failed: {type(error).__name__}") from None

    def _message(self, letter: Email) -> EmailMessage:
        message = EmailMessage(policy=SMTP_POLICY)
        # The library refuses a line break in any of these.
        message["From"] = self._sender
        message["To"] = Address(addr_spec=mailable(letter.to))
        message["Subject"] = letter.subject
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain=self._sender.domain)
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: suppresses automatic replies
        message.set_content(letter.text, charset="utf-8", cte="base64")
        return message


def _refusal(codes: Sequence[int]) -> AiProjectError:
    if codes and all(500 <= code < 600 for code in codes):
        return NotMailable(f"the mail server refuses the letter ({codes[0]})")
    return Unavailable(f"the mail server does not take the letter now ({codes[0] if codes else 'no reply'})")


Job = Callable[[], Awaitable[Sequence[Email]]]
"""Determines which e-mails are to be sent."""


class MailQueue:
    """A queue whose e-mails are composed and sent in the background.

    The response time of a request therefore does not reveal whether it causes an e-mail. The queue is in memory: what
    waits is lost if the process dies.
    """

    def __init__(self, mailer: Mailer, *, size: int = OUTBOX_SIZE, pauses: Sequence[float] = RETRY_PAUSES) -> None:
        self._mailer = mailer
        self._jobs: asyncio.Queue[Job] = asyncio.Queue(size)
        self._pauses = tuple(pauses)

    def put(self, job: Job) -> bool:
        """Queue a job; ``False``: the queue is full, and the job is not accepted."""
        try:
            self._jobs.put_nowait(job)
        except asyncio.QueueFull:
            log.warning("too many letters wait", waiting=self._jobs.qsize())
            return False
        return True

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[MailQueue]:
        """Process the queue within the block.

        At the end, waiting jobs get `CLOSING_SECONDS`. The remaining ones are lost, which is logged.
        """
        workers = [asyncio.create_task(self._work()) for _ in range(OUTBOX_WORKERS)]
        try:
            yield self
        finally:
            try:
                async with asyncio.timeout(CLOSING_SECONDS):
                    await self._jobs.join()
            except TimeoutError:
                log.warning("letters are lost at the stop", waiting=self._jobs.qsize())
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            job = await self._jobs.get()
            try:
                for letter in await job():
                    await self._send(letter)
            except AiProjectError as error:
                log.warning("a letter was not written", error=type(error).__name__)
            except Exception as error:  # noqa: BLE001 - a bug in one e-mail must not stop the others
                log.error("bug", error=type(error).__name__, where="outbox")
            finally:
                self._jobs.task_done()

    async def _send(self, letter: Email) -> None:
        for pause in (*self._pauses, None):
            try:
                await self._mailer.send(letter)
            except NotMailable as error:
                log.warning("a letter is refused for good", error=str(error))
                return
            except Unavailable as error:
                if pause is None:
                    log.error("a letter could not be sent", error=error.detail)
                    return
                log.info("a letter is tried again", error=error.detail, seconds=pause)
                await asyncio.sleep(pause)
            else:
                log.info("letter sent", subject=letter.subject)
                return
