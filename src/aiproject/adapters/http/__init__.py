"""What every HTTP route shares: ASGI types, bodies, connections and rate limits."""
