"""Outgoing connections: dialer, websocket client, deadlines and Redis."""
