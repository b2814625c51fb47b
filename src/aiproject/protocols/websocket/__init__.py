"""The client's side of RFC 6455 without I/O: the handshake and the frames."""
