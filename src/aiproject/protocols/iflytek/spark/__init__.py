"""The Spark chat protocol over websocket: a question goes out in one frame, the answer comes back in many.

`request` and `answer` are the caller's side, `server` the platform's, `frames` makes frames for both. No module here
touches a socket or a clock.
"""
