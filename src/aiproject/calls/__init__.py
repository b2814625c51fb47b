"""The path of a call: admit, hold, ask upstream, pass the answer on, capture.

The endpoints are plain ASGI, so that no frame is copied or parsed more than needed. `aiproject.web` mounts them.
"""
