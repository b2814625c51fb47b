"""Mail servers' URLs, and what is an address."""

from __future__ import annotations

import pytest

from aiproject.adapters.mailer import Mailer, MailServer, NotMailable, Security, mailable, parse_smtp_url
from aiproject.errors import Misconfigured
from aiproject.messages.formatting import Language, format_error


class TestUrl:
    @pytest.mark.parametrize(
        ("url", "server"),
        [
            ("smtp://mail.example.com", MailServer("mail.example.com", 587, Security.STARTTLS)),
            ("smtps://mail.example.com", MailServer("mail.example.com", 465, Security.TLS)),
            ("smtp://mail.example.com:25/", MailServer("mail.example.com", 25, Security.STARTTLS)),
            ("smtp://localhost:25", MailServer("localhost", 25, Security.NONE)),
            ("smtp://127.0.0.1", MailServer("127.0.0.1", 587, Security.NONE)),
            ("smtp://[::1]:25", MailServer("::1", 25, Security.NONE)),
            ("smtp://127.0.0.1?ca_file=/ca.pem", MailServer("127.0.0.1", 587, Security.STARTTLS, ca_file="/ca.pem")),
            (
                "smtps://a%40b.cn:p%C3%A4ss%3A%2F@mail.example.com",
                MailServer("mail.example.com", 465, Security.TLS, "a@b.cn", "päss:/"),
            ),
            # A name that looks local, and is not.
            ("smtp://localhost.example.com", MailServer("localhost.example.com", 587, Security.STARTTLS)),
            ("smtp://10.0.0.1", MailServer("10.0.0.1", 587, Security.STARTTLS)),
        ],
    )
    def test_reading(self, url: str, server: MailServer) -> None:
        assert parse_smtp_url(url) == server

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "mail.example.com",
            "http://mail.example.com",
            "smtp://",
            "smtp://u:hunter2@",
            "smtp://u:hunter2@host:port",
            "smtp://u:hunter2@host:99999",
            "smtp://u:hunter2@host/path",
            "smtp://u:hunter2@host?tls=no",
            "smtp://u:hunter2@host?hunter2",
            "smtp://u:hunter2@host#x",
            "smtp://u:hunter2@[host",
        ],
    )
    def test_what_is_refused_is_not_quoted(self, url: str) -> None:
        with pytest.raises(Misconfigured) as caught:
            parse_smtp_url(url)
        assert "AIPROJECT_SMTP_URL" in format_error(caught.value, Language.EN)
        assert "hunter2" not in str(caught.value)

    def test_the_password_does_not_show(self) -> None:
        assert "hunter2" not in repr(parse_smtp_url("smtps://user:hunter2@host"))


class TestAddress:
    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("ming@example.com", "ming@example.com"),
            (" a.b+c@Example.co.uk ", "a.b+c@example.co.uk"),
            ("ming@例子.cn", "ming@xn--fsqu00a.cn"),
        ],
    )
    def test_in_the_form_that_travels(self, text: str, found: str) -> None:
        assert mailable(text).lower() == found

    @pytest.mark.parametrize(
        "text",
        [
            "", "xxx", "@", "a@", "@b.cn", "a b@c.cn", "a@b c.cn", "a@b.cn, c@d.cn", "a@b.cn;c@d.cn", "<a@b.cn>",
            "a@b.cn\r\nBcc: c@d.cn", "a@b.cn\nx", "a\r\n@b.cn", "a@b@c.cn", '"a b"@c.cn', "a(x)@b.cn", "小明@b.cn",
            "a@b.cn\0", "a@" + "b" * 64 + ".cn", "a" * 250 + "@b.cn", "a@..", "a@b..cn", "\ud800@b.cn", "a@\ud800.cn",
            "A <a@b.cn>", "group: a@b.cn;",
        ],
    )  # fmt: skip
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(NotMailable):
            mailable(text)

    @pytest.mark.parametrize("sender", ["", "nobody", "AiProject", "a@b.cn\r\nBcc: c@d.cn", "a@b.cn, c@d.cn"])
    def test_a_sender_that_is_none(self, sender: str) -> None:
        with pytest.raises(Misconfigured, match="MAIL_FROM_NOT_ADDRESS"):
            Mailer(MailServer("localhost", 25, Security.NONE), sender)
