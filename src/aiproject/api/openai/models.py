"""``GET /v1/models`` and ``GET /v1/models/{id}``: the public names of the models."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from aiproject.accounts.identity.authenticator import Authenticator, bearer_of
from aiproject.adapters.http.asgi import note
from aiproject.adapters.http.json import answer
from aiproject.errors import ModelUnknown, NotSignedIn
from aiproject.providers.base import ChatProvider, ModelLimits

__all__ = ["ModelRoutes", "Models"]


class Models:
    """The public names of the text models.

    Args:
        names: all of one provider's model.
    """

    def __init__(self, provider: ChatProvider, names: tuple[str, ...]) -> None:
        self._provider = provider
        self.names = tuple(dict.fromkeys(names))

    def limits(self, name: str) -> ModelLimits:
        """Return what a model takes.

        Raises:
            ModelUnknown: there is none of this name.
        """
        if name not in self.names:
            raise ModelUnknown(name[:100])
        return self._provider.limits(name)


class ModelRoutes:
    """The endpoints."""

    def __init__(self, authenticator: Authenticator, models: Models) -> None:
        self._authenticator = authenticator
        self._models = models

    async def list(self, request: Request) -> Response:
        """Return all models."""
        await self._check(request)
        return answer({"object": "list", "data": [_model(name) for name in self._models.names]})

    async def show(self, request: Request) -> Response:
        """Return one model."""
        await self._check(request)
        name = request.path_params["model"]
        self._models.limits(name)
        return answer(_model(name))

    async def _check(self, request: Request) -> None:
        if bearer_of(request.scope) is None:
            raise NotSignedIn
        await self._authenticator.of_headers(request.scope)
        note(request.scope, outcome="ok")


def _model(name: str) -> Mapping[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "aiproject"}
