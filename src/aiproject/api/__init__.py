"""The APIs: each turns bytes into a call, and the call's events into the bytes of its dialect."""
