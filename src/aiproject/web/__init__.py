"""The HTTP application: routes, middleware, pages, probes and the OpenAPI description."""
