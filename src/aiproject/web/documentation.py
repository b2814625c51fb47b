"""``/docs``: Swagger UI for the description at ``/openapi.json``, without requests to any other host.

For the choice of Starlette and of another package's files see docs/decisions/0032-declared-bodies.md.
"""

from __future__ import annotations

import html
import json
from functools import cache
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from aiproject.web.openapi import describe

__all__ = ["documentation_routes"]

STATIC_PATH: Final = "/static-offline-docs"
STATIC_PACKAGE: Final = ("fastapi_offline", "static")
"""The location of Swagger UI's files. `StaticFiles` locates the package without importing it, so FastAPI, which the
package imports, costs neither startup time nor memory."""

PAGE: Final = """<!doctype html>
<html lang="zh-CN">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1.0">
<link type="text/css" rel="stylesheet" href="{static}/swagger-ui.css">
<link rel="shortcut icon" href="{static}/favicon.png">
<title>AiProject - Swagger UI</title>
</head>
<body>
<div id="swagger-ui"></div>
<script src="{static}/swagger-ui-bundle.js"></script>
<script>
SwaggerUIBundle({{
  url: {description},
  dom_id: "#swagger-ui",
  layout: "BaseLayout",
  deepLinking: true,
  showExtensions: true,
  showCommonExtensions: true,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
}});
</script>
</body>
</html>
"""


def documentation_routes() -> list[BaseRoute]:
    """Return the routes of the page, of its static files, and of the OpenAPI description."""
    return [
        Route("/openapi.json", _description, methods=["GET"]),
        Route("/docs", _page, methods=["GET"]),
        Mount(STATIC_PATH, StaticFiles(packages=[STATIC_PACKAGE]), name="static-offline-docs"),
    ]


async def _description(_request: Request) -> Response:
    return Response(_encoded(), media_type="application/json")


@cache
def _encoded() -> bytes:
    # Encoded on first use, since most processes never serve it.
    return msgspec.json.encode(describe())


async def _page(request: Request) -> Response:
    root = request.scope.get("root_path", "").rstrip("/")
    # `json.dumps` does not escape "<", which could end the script element early.
    description = json.dumps(f"{root}/openapi.json").replace("<", "\\u003c")
    return HTMLResponse(PAGE.format(static=html.escape(f"{root}{STATIC_PATH}"), description=description))
