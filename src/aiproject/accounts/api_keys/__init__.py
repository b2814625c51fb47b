"""API keys: their format, their limits, and the use cases that create, list and revoke them."""
