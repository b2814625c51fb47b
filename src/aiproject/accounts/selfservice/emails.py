"""The e-mail templates, in Chinese and English, plain text. No I/O."""

from __future__ import annotations

from aiproject.adapters.mailer import Email

__all__ = ["reset_email", "verification_email"]


def verification_email(to: str, token: str, public_url: str | None) -> Email:
    """Return the e-mail with which the owner of an address verifies it.

    The recipient's address is unverified, so the e-mail contains no text from the account's user, not even the name.
    Otherwise the server could be abused to send arbitrary text to any address.
    """
    link = _link(public_url, "verify", token)
    return Email(
        to,
        "验证邮箱 / Verify your e-mail address",
        f"""您好：

有人在 AiProject 上把这个邮箱地址设为自己账号的邮箱。如果是您本人，请在 24 小时内完成验证：

{link}

如果不是您本人，请忽略此邮件，不会有任何变化。

----

Hello,

somebody gave this address as that of their AiProject account. If it was you, please verify it within 24 hours:

{link}

If it was not you, ignore this e-mail; nothing will happen.
""",
    )


def reset_email(to: str, username: str, token: str, public_url: str | None) -> Email:
    """Return the e-mail with which a forgotten password is reset."""
    link = _link(public_url, "reset", token)
    return Email(
        to,
        "重置密码 / Reset your password",
        f"""您好：

有人申请重置账号“{username}”的密码。如果是您本人，请在 30 分钟内设置新密码：

{link}

设置新密码后，所有设备都需要重新登录。如果不是您本人，请忽略此邮件，密码不会改变。

----

Hello,

somebody asked to reset the password of the account "{username}". If it was you, please set a new one within 30 minutes:

{link}

All devices must sign in again afterwards. If it was not you, ignore this e-mail; your password stays as it is.
""",
    )


def _link(public_url: str | None, purpose: str, token: str) -> str:
    """Return the link to open, or the token alone if the server's public address is not configured.

    The token is in the fragment, which browsers do not send, so it reaches no log and no other site.
    """
    if public_url is None:
        return f"验证码 / code: {token}"
    return f"{public_url.rstrip('/')}/mail#{purpose}={token}"
