"""Protocol cores without I/O: bytes and events in, events and bytes out.

No module here knows a socket, a clock or an event loop; time and randomness come in as arguments.
"""
