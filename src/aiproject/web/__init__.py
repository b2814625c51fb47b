"""The HTTP door: routes, middleware, the pages for people and probes, and the OpenAPI description."""
