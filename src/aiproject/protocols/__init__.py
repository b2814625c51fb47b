"""Sans-I/O protocol implementations: bytes and events in, events and bytes out.

No module here uses a socket, a clock or an event loop; time and randomness are passed in as arguments.
"""
