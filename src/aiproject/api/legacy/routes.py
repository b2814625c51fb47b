"""The addresses of the legacy API that run calls."""

from __future__ import annotations

from collections.abc import Mapping

from aiproject.adapters.http.asgi import ASGIApp
from aiproject.adapters.http.event_limits import EventRateLimiter
from aiproject.api.legacy.chat import ChatDefaults, TextChat, TextStream
from aiproject.api.legacy.files import PictureText, VoiceText
from aiproject.calls.services import CallServices

__all__ = ["legacy_endpoints"]


def legacy_endpoints(
    services: CallServices, defaults: ChatDefaults, limiter: EventRateLimiter, *, anonymous_voice: bool
) -> Mapping[str, ASGIApp]:
    """Return the endpoints by address; each accepts ``POST``.

    Args:
        limiter: limits anonymous callers.
        anonymous_voice: whether anonymous callers may use dictation.
    """
    running, authenticator = services.running, services.authenticator
    return {
        "/textModel/chat": TextChat(running, authenticator, services.chats, defaults),
        "/textModel/stream": TextStream(running, authenticator, services.chats, defaults),
        "/voiceModel/chat": VoiceText(running, authenticator, services.clips, limiter, anonymous=anonymous_voice),
        "/PictureToTextModel/chat": PictureText(running, authenticator, services.pictures),
    }
