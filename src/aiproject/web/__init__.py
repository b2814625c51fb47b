"""The HTTP door: routes, middleware, the pages for people and probes, and the OpenAPI description."""

from aiproject.web.app import build_app

__all__ = ["build_app"]
