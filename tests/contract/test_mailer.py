"""Letters against a real SMTP server: what is sent, and what is never sent in clear."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import pytest

from aiproject.adapters import mailer as mailer_module
from aiproject.adapters.mailer import Email, Mailer, MailQueue, MailServer, NotMailable, Security, parse_smtp_url
from aiproject.errors import Misconfigured, Unavailable
from mail_server import LOGIN, PASSWORD, make_certificate, running_mail_server
from system.harness import taken_port

LETTER = Email(
    "小明@例子.cn".replace("小明", "ming"), "重置密码 / Reset", "您好：\n\n.\n点号单独一行\n" + "长" * 2000 + "\n"
)
SENDER = "AiProject 服务 <noreply@example.com>"


def server(port: int, security: Security, ca_file: Path | None = None) -> MailServer:
    return MailServer("127.0.0.1", port, security, ca_file=None if ca_file is None else str(ca_file))


class TestSending:
    async def test_a_plain_letter_arrives_whole(self) -> None:
        with running_mail_server() as box:
            await Mailer(parse_smtp_url(f"smtp://127.0.0.1:{box.port}"), SENDER).send(LETTER)
            (recipients, letter), = box.letters  # fmt: skip
        assert recipients == ["ming@xn--fsqu00a.cn"]
        assert letter["From"] == SENDER
        assert letter["Subject"] == LETTER.subject
        assert letter["Auto-Submitted"] == "auto-generated"
        assert letter["Date"]
        assert letter["Message-ID"].endswith("@example.com>")
        assert letter.get_content_type() == "text/plain"
        assert letter.get_content().replace("\r\n", "\n") == LETTER.text

    # The test's server does not count TLS from the first byte as such.
    @pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
    @pytest.mark.parametrize("scheme", ["smtp", "smtps"])
    async def test_by_tls_with_a_login(self, scheme: str, tmp_path: Path) -> None:
        certificate = make_certificate(tmp_path)
        with running_mail_server(certificate, implicit_tls=scheme == "smtps", needs_login=True) as box:
            user = f"{quote(LOGIN, safe='')}:{quote(PASSWORD, safe='')}"
            url = f"{scheme}://{user}@127.0.0.1:{box.port}?ca_file={quote(str(certificate.ca_file))}"
            await Mailer(parse_smtp_url(url), SENDER).send(LETTER)
            assert box.logins == [LOGIN]
            assert len(box.letters) == 1

    @pytest.mark.parametrize("security", [Security.TLS, Security.STARTTLS])
    async def test_a_certificate_of_another_is_not_trusted(self, security: Security, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        own, other = make_certificate(tmp_path), make_certificate(tmp_path / "other")
        wrong_host = make_certificate(tmp_path / "other", host="127.0.0.9")
        for certificate, ca_file in ((own, other.ca_file), (own, None), (wrong_host, wrong_host.ca_file)):
            with running_mail_server(certificate, implicit_tls=security is Security.TLS) as box:
                with pytest.raises(Unavailable):
                    await Mailer(server(box.port, security, ca_file), SENDER).send(LETTER)
                assert box.letters == []

    async def test_without_starttls_nothing_is_sent(self) -> None:
        with running_mail_server() as box:
            with pytest.raises(Unavailable):
                await Mailer(server(box.port, Security.STARTTLS), SENDER).send(LETTER)
            assert box.letters == []

    async def test_refusals(self) -> None:
        with running_mail_server() as box:
            sender = Mailer(server(box.port, Security.NONE), SENDER)
            box.refusals = ["550 no such box", "451 later"]
            with pytest.raises(NotMailable):
                await sender.send(LETTER)
            with pytest.raises(Unavailable):
                await sender.send(LETTER)

    async def test_nobody_there(self) -> None:
        other, port = taken_port()
        other.close()
        with pytest.raises(Unavailable):
            await Mailer(server(port, Security.NONE), SENDER).send(LETTER)

    async def test_a_server_that_says_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mailer_module, "STEP_SECONDS", 0.2)
        other, port = taken_port()
        try:
            async with asyncio.timeout(5):
                with pytest.raises(Unavailable):
                    await Mailer(server(port, Security.NONE), SENDER).send(LETTER)
        finally:
            other.close()

    async def test_no_line_break_gets_into_a_header(self) -> None:
        with running_mail_server() as box:
            sender = Mailer(server(box.port, Security.NONE), SENDER)
            for letter in (
                Email("a@b.cn\r\nBcc: c@d.cn", "x", "y"),
                Email("a@b.cn\nBcc: c@d.cn", "x", "y"),
                Email("a@b.cn, c@d.cn", "x", "y"),
            ):
                with pytest.raises(NotMailable):
                    await sender.send(letter)
            with pytest.raises(ValueError, match=r"linefeed|newline"):
                await sender.send(Email("a@b.cn", "x\r\nBcc: c@d.cn", "y"))
            await sender.send(Email("a@b.cn", "x", "\r\n.\r\nRCPT TO:<c@d.cn>\r\n"))
            assert [recipients for recipients, _ in box.letters] == [["a@b.cn"]]

    def test_a_file_of_certificates_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "empty.pem").write_text("nothing")
        for path in (tmp_path / "empty.pem", tmp_path / "missing.pem"):
            with pytest.raises(Misconfigured):
                Mailer(server(1, Security.TLS, path), SENDER)


class TestOutbox:
    async def test_tries_again_and_gives_up(self) -> None:
        with running_mail_server() as box:
            outbox = MailQueue(Mailer(server(box.port, Security.NONE), SENDER), pauses=(0.01, 0.01))
            box.refusals = ["451 later", "451 later"]

            async def fails() -> Sequence[Email]:
                raise ValueError

            async def write() -> Sequence[Email]:
                return [LETTER]

            async with outbox.running():
                assert outbox.put(fails), "a bug in one stops no other"
                assert outbox.put(write)
                await asyncio.to_thread(box.wait, 1)
                box.refusals = ["451 later"] * 3 + ["550 never"]
                assert outbox.put(write)
            assert box.refusals == ["550 never"], "three tries, and its end waits for them"
            assert len(box.letters) == 1

    async def test_is_bounded(self) -> None:
        outbox = MailQueue(Mailer(server(1, Security.NONE), SENDER), size=2)

        async def write() -> Sequence[Email]:
            return []

        assert [outbox.put(write) for _ in range(3)] == [True, True, False]
        async with outbox.running():
            pass
        assert outbox.put(write)
