"""API keys: their shape, their limits, and the use cases of making, listing and revoking them."""
