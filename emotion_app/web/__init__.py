"""The web door: page, REST and live sockets on one port. Nothing below this package knows about HTTP."""
