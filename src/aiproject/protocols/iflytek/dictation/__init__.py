"""Dictation: sound in, text out, over a websocket, in both generations of the vendor's protocol.

`dialect` tells the generations apart, `client` is our side with `transcript` as its memory, `server` is the
platform's side (for the sandbox).
"""
