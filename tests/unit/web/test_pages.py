"""The policy of a page: each inline script by its digest, everything else from this server or not at all."""

from __future__ import annotations

from aiproject.web.pages import content_security_policy


def test_each_inline_script_is_named_and_nothing_else() -> None:
    page = b"<script src='/x.js'></script><script>a()</script><p><script>\nb()\n</script>"
    policy = content_security_policy(page)
    assert policy.count(b"'sha256-") == 2
    assert content_security_policy(page.replace(b"a()", b"c()")) != policy


def test_a_page_without_scripts_allows_none_inline() -> None:
    assert b"script-src 'self';" in content_security_policy(b"{}")
