"""``/docs``: Swagger UI over the description at ``/openapi.json``, without a request to any other host.

Why Starlette and files of another package: docs/decisions/0032-declared-bodies.md.
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
"""Where Swagger UI's files are. `StaticFiles` looks the package up without importing it, so that FastAPI, which it
imports, costs neither time at the start nor memory."""

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
    """Return the routes of the page, of the files that it loads, and of the description."""
    return [
        Route("/openapi.json", _description, methods=["GET"]),
        Route("/docs", _page, methods=["GET"]),
        Mount(STATIC_PATH, StaticFiles(packages=[STATIC_PACKAGE]), name="static-offline-docs"),
    ]


async def _description(_request: Request) -> Response:
    return Response(_encoded(), media_type="application/json")


@cache
def _encoded() -> bytes:
    # Encoded on first use: most processes are never asked.
    return msgspec.json.encode(describe())


async def _page(request: Request) -> Response:
    root = request.scope.get("root_path", "").rstrip("/")
    # "<" cannot end the script early: `json.dumps` leaves it as it is, so it is escaped here.
    description = json.dumps(f"{root}/openapi.json").replace("<", "\\u003c")
    return HTMLResponse(PAGE.format(static=html.escape(f"{root}{STATIC_PATH}"), description=description))
