"""The services that an API needs to run calls."""

from __future__ import annotations

from dataclasses import dataclass

from aiproject.accounts.identity.authenticator import Authenticator
from aiproject.calls.chat import ChatCalls
from aiproject.calls.running import RunningCalls
from aiproject.calls.unary import ClipCalls, PictureCalls

__all__ = ["CallServices"]


@dataclass(frozen=True, slots=True)
class CallServices:
    """The objects between an API and the providers.

    Attributes:
        running: every request that runs a call enters it, so that a stopping server waits for it.
        authenticator: identifies callers.
    """

    running: RunningCalls
    authenticator: Authenticator
    chats: ChatCalls
    pictures: PictureCalls
    clips: ClipCalls
