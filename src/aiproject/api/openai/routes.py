"""The addresses of OpenAI's API."""

from __future__ import annotations

from typing import Final

from starlette.routing import BaseRoute, Route

from aiproject.api.openai.chat import ChatCompletions
from aiproject.api.openai.models import ModelRoutes, Models
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
        Route("/v1/chat/completions", ChatCompletions(services, models, default_tokens), methods=["POST"]),
        Route("/v1/models", shown.list, methods=["GET"]),
        Route("/v1/models/{model:path}", shown.show, methods=["GET"]),
    ]
