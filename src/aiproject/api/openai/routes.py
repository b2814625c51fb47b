"""The addresses of OpenAI's API."""

from __future__ import annotations

from typing import Final

from starlette.routing import BaseRoute

from aiproject.adapters.http.operation import route_of
from aiproject.api.openai.chat import ChatCompletions
from aiproject.api.openai.models import ModelRoutes, Models
from aiproject.api.openai.operations import CHAT_COMPLETIONS, LIST_MODELS, SHOW_MODEL
from aiproject.calls.services import CallServices
from aiproject.protocols.openai.errors import OpenAIDialect

__all__ = ["OPENAI_DIALECTS", "openai_routes"]

OPENAI_DIALECTS: Final = (OpenAIDialect("/v1/chat/"), OpenAIDialect("/v1/models"))
"""How its addresses show errors."""


def openai_routes(services: CallServices, models: Models, default_tokens: int) -> list[BaseRoute]:
    """Return the routes.

    Args:
        default_tokens: completion limit of a request that names none.
    """
    shown = ModelRoutes(services.authenticator, models)
    return [
        route_of(CHAT_COMPLETIONS, ChatCompletions(services, models, default_tokens)),
        route_of(LIST_MODELS, shown.list),
        route_of(SHOW_MODEL, shown.show),
    ]
