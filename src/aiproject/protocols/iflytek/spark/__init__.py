"""The Spark chat protocol over websocket: one frame asks, many frames answer.

`request` and `answer` are the client's side, `server` is the platform's, `frames` builds frames for both. No module
here uses a socket or a clock.
"""
