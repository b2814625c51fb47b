"""The dictation protocol: audio in, text out, over a websocket, in both generations of the vendor's protocol.

`dialect` distinguishes the generations, `client` is our side with `transcript` as its state, `server` is the platform's
side (for the sandbox).
"""
