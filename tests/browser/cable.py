"""A cable between browser and server that can be cut: a TCP proxy on a free port of 127.0.0.1."""

from __future__ import annotations

import contextlib
import socket
import threading


class Cable:
    """Passes bytes both ways; ``cut`` breaks every connection and refuses new ones until ``mend``.

    Args:
        target: port of the server.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self._whole = True
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break it."""
        self._whole = False
        for end in list(self._sockets):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self, target: int | None = None) -> None:
        """Whole again, perhaps to another server."""
        self.target = target or self.target
        self._whole = True

    def close(self) -> None:
        """No more of it."""
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self._whole:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.target), 5)
            except OSError:
                near.close()
                continue
            for a, b in ((near, far), (far, near)):
                self._sockets.add(a)
                threading.Thread(target=self._pass, args=(a, b), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            self._sockets.discard(source)
            source.close()
