"""Mail is off, on, or set up wrongly; the last is told at the start."""

from __future__ import annotations

import pytest

from aiproject.config.loading import load_settings
from aiproject.errors import Misconfigured
from aiproject.wiring import open_outbox

SENDER = "AiProject <noreply@example.com>"


def test_off_and_on() -> None:
    assert open_outbox(load_settings()) is None
    assert open_outbox(load_settings(smtp_url="smtp://localhost", mail_from=SENDER)) is not None


@pytest.mark.parametrize(
    "given",
    [
        {"smtp_url": "smtp://localhost"},
        {"mail_from": SENDER},
        {"smtp_url": "smtp://u:hunter2@host:x", "mail_from": SENDER},
        {"smtp_url": "smtp://u:hunter2@host", "mail_from": "nobody"},
        {"smtp_url": "smtp://u:hunter2@host?ca_file=/nowhere", "mail_from": SENDER},
    ],
)
def test_half_of_it_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(Misconfigured) as caught:
        open_outbox(load_settings(**given))
    assert "hunter2" not in str(caught.value)
