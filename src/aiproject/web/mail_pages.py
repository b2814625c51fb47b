"""``/mail``: the page to which links in e-mails lead. It reads the token from the URL's fragment and posts it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["mail_pages"]

HEADERS = {
    # Allows only this server's script, with requests only to this server, and no embedding in frames.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

PAGE = """<!doctype html>
<html lang="zh-CN">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>AiProject</title>
<h1>AiProject</h1>
<noscript><p>此页面需要 JavaScript。 This page needs JavaScript.</p></noscript>
<form id="verify" hidden>
<p>确认这个邮箱属于您？ Is this e-mail address yours?</p>
<p><button>验证邮箱 / Verify</button></p>
</form>
<form id="reset" hidden>
<p><label>新密码 / New password<br>
<input id="password" type="password" autocomplete="new-password"
 minlength="{min_length}" maxlength="128" required></label></p>
<p><button>重置密码 / Reset</button></p>
</form>
<p id="result" role="status"></p>
<script src="mail.js"></script>
</html>
"""

SCRIPT = """"use strict";
const result = document.getElementById("result");
const [purpose, token] = location.hash.slice(1).split("=");
// The token leaves the address bar, and with it the history.
history.replaceState(null, "", location.pathname);

async function post(path, body) {
  try {
    const response = await fetch(path, {
      method: "POST",
      credentials: "omit",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const answer = await response.json();
    result.textContent = answer.msg;
    return answer.code === 0;
  } catch {
    result.textContent = "网络异常，请重试 / Network error, please try again";
    return false;
  }
}

function offer(form, path, body) {
  form.hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    if (await post(path, body())) form.hidden = true;
    button.disabled = false;
  });
}

// Posting needs a click: mail scanners open links, but press no buttons.
if (purpose === "verify" && token) {
  offer(document.getElementById("verify"), "v1/email/verification", () => ({ token }));
} else if (purpose === "reset" && token) {
  const password = document.getElementById("password");
  offer(document.getElementById("reset"), "v1/password-reset/confirm", () => ({ token, new_password: password.value }));
} else {
  result.textContent = "链接不完整 / This link is incomplete";
}
"""


def mail_pages(password_min_length: int) -> list[Route]:
    """Return the routes of the page and its script; both are the same for all users.

    Args:
        password_min_length: minimum characters of a new password, which the browser checks before it sends one.
    """
    content = PAGE.replace("{min_length}", str(password_min_length))

    async def page(_request: Request) -> Response:
        return Response(content, media_type="text/html", headers=HEADERS)

    async def script(_request: Request) -> Response:
        return Response(SCRIPT, media_type="text/javascript", headers=HEADERS)

    return [Route("/mail", page, methods=["GET"]), Route("/mail.js", script, methods=["GET"])]
