"""OpenAI's API over the calls of this server."""
