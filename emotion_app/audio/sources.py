"""Where bytes come from: regular files, bytes and file objects; and what a source may be called on a page."""

from __future__ import annotations

import io
import os
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from emotion_app.errors import AccessError, AudioError

_SPOOL_BYTES = 1 << 20
_KINDS = ((stat.S_ISDIR, "directory"), (stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"),
          (stat.S_ISCHR, "device"), (stat.S_ISBLK, "device"))  # fmt: skip
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")


class Reader:
    """What FFmpeg sees of a source: bytes without a name, so that no extension, protocol or path plays a part.

    Attributes:
        n_bytes: size of the source.
        head: its first 64 kB.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.n_bytes = file.seek(0, os.SEEK_END)
        file.seek(0)
        self.head = file.read(65_536)
        file.seek(0)

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes."""
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; returns the new position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Position."""
        return self._file.tell()


@contextmanager
def open_source(source: str | Path | bytes | bytearray | memoryview | BinaryIO, spool_mb: float) -> Iterator[Reader]:
    """A Reader over ``source``; file objects are read from their start and left open.

    Args:
        source: path, bytes, or a binary file object; one that cannot seek is read into memory first.
        spool_mb: how much of an unseekable one is read; more -> TOO_LARGE.

    Raises:
        AudioError: NO_SUCH_FILE, NOT_A_FILE, EMPTY, TOO_LARGE, BAD_ARRAY (not a source at all).
        AccessError: FORBIDDEN_PATH.
    """
    if isinstance(source, (str, Path)):
        with open_regular(source) as file:
            yield _reader(file)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        yield _reader(io.BytesIO(source))
    elif hasattr(source, "read"):
        yield _reader(source if _seekable(source) else _spool(source, spool_mb))
    else:
        raise AudioError("BAD_ARRAY", reason=f"a {type(source).__name__} is not a path, bytes, a file or an array")


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file (or a link to one); a pipe or a device neither blocks nor feeds without end.

    Raises:
        AudioError: NO_SUCH_FILE, NOT_A_FILE.
        AccessError: FORBIDDEN_PATH.
    """
    shown = display_name(str(path), 200)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except PermissionError as error:
        raise AccessError("FORBIDDEN_PATH") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise AudioError("NO_SUCH_FILE", name=shown) from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = next((word for test, word in _KINDS if test(mode)), "special file")
        raise AudioError("NOT_A_FILE", name=shown, kind=kind)
    return os.fdopen(descriptor, "rb")


def display_name(name: str, limit_bytes: int) -> str:
    """``name`` as it may be shown: last path part, no control or direction-changing characters, bounded.

    It is never used as a path; whoever writes it into HTML or CSV still has to escape it.

    >>> display_name("../../etc/pass\\nwd", 200), display_name("C:\\\\tmp\\\\你好.wav", 200), display_name("a" * 300, 9)
    ('pass wd', '你好.wav', 'aaaaaa…')
    """
    last = name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    readable = last.encode("utf-8", "replace").decode("utf-8")  # lone surrogates of undecodable file names
    plain = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in readable if c not in _BIDI)
    plain = " ".join(plain.split()) or "audio"
    data = plain.encode("utf-8")
    if len(data) <= limit_bytes:
        return plain
    return data[: max(0, limit_bytes - len("…".encode()))].decode("utf-8", "ignore") + "…"


def _reader(file: BinaryIO) -> Reader:
    try:
        reader = Reader(file)
    except (OSError, ValueError) as error:
        raise AudioError("UNDECODABLE", container="?", codec="?", reason=type(error).__name__) from error
    if not isinstance(reader.head, bytes):
        raise AudioError("BAD_ARRAY", reason="the file object gives text: open it in binary mode")
    if not reader.head:
        raise AudioError("EMPTY")
    return reader


def _seekable(file: BinaryIO) -> bool:
    return bool(getattr(file, "seekable", lambda: False)())


def _spool(file: BinaryIO, limit_mb: float) -> BinaryIO:
    parts, size = [], 0
    while part := file.read(_SPOOL_BYTES):
        if not isinstance(part, bytes):
            raise AudioError("BAD_ARRAY", reason="the file object gives text: open it in binary mode")
        size += len(part)
        if size > limit_mb * 1e6:
            raise AudioError("TOO_LARGE", limit_mb=limit_mb)
        parts.append(part)
    return io.BytesIO(b"".join(parts))
