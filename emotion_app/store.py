"""Result folders ``outputs/outputs_YYYYMMDD_HHMMSS[_2]/``: save, list, open, hand out, delete, keep in bounds.

A folder is there whole or not at all (``folders``). Names and files that come from outside are checked against a
pattern and a fixed list; links are never followed.
"""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import threading
import time
import wave
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import numpy as np

from emotion_app import folders, result_files, result_json
from emotion_app.errors import RequestError, StoreError
from emotion_app.settings import Limits
from emotion_app.types import Floats, Result

FILES = ("result.json", "processed_audio.wav", "scores.png", "timeline.png", "frames.csv", "embedding.npy",
         "frame_embeddings.npy")  # all that is ever handed out, in the order shown
CHARTS = ("scores.png", "timeline.png")
KEPT_S = 3600.0  # retention never takes a younger result: somebody may still be looking at it
TRIM_EVERY = 20  # saves between two looks at the bounds; each look reads the size of every folder
HEAD_BYTES = 1 << 16  # the head of result.json is a few kB
_NAME = re.compile(r"outputs_([0-9]{8}_[0-9]{6})(?:_([0-9]{1,4}))?")
_FULL = {errno.ENOSPC, errno.EDQUOT}
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, wave.Error, EOFError)


@dataclass(frozen=True)
class SavedResult:
    """A published folder: ``files`` are the paths that are in it, in the order of ``FILES``."""

    name: str
    path: Path
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Summary:
    """One line of the history. ``readable`` is False when ``result.json`` is missing or damaged; then facts are None.

    ``created`` is the local time in the folder's name.
    """

    name: str
    created: datetime
    readable: bool
    emotion: str | None = None
    confidence: float | None = None
    granularity: str | None = None
    duration_s: float | None = None
    source: str | None = None
    model: str | None = None


@dataclass(frozen=True)
class Usage:
    """What the results take, and what is left on their disk."""

    n_results: int
    n_bytes: int
    free_bytes: int


class Store:
    """The result folders under one root; any number of processes may share it.

    Args:
        root: made at the first save.
        limits: ``disk_free_mb``, ``results_max``, ``results_gb``.
    """

    def __init__(self, root: Path, limits: Limits) -> None:
        self.root = Path(root)
        self._limits = limits
        self._saves = 0
        self._lock = threading.Lock()

    def check_space(self, need_bytes: int = 0) -> None:
        """Say before the work that its result would not fit.

        Args:
            need_bytes: what is about to be written.

        Raises:
            StoreError: DISK_FULL when less than ``limits.disk_free_mb`` would be left.
        """
        free = self._free_bytes() - need_bytes
        if free < self._limits.disk_free_mb * 1e6:
            raise self._disk_full()

    def save(self, result: Result, extra: Mapping[str, bytes] | None = None) -> SavedResult:
        """Publish a result as a new folder, named by its ``created`` time.

        Args:
            result: frames.csv is written when it has frames and a timeline, the ``.npy`` files when it has embeddings.
            extra: charts as PNG, by their names in ``CHARTS``.

        Raises:
            StoreError: DISK_FULL or CANNOT_SAVE; then there is no folder.
        """
        files = dict(_contents(result))
        for name, data in (extra or {}).items():
            if name not in CHARTS:
                raise ValueError(f"extra holds {name}, not one of {CHARTS}")
            files[name] = (data,)
        self.check_space()
        try:
            path = folders.publish(self.root, f"outputs_{result.created:%Y%m%d_%H%M%S}", files)
        except OSError as error:
            raise self._failure(error) from error
        self._trim_now_and_then()
        return SavedResult(path.name, path, tuple(path / name for name in FILES if name in files))

    def list(self, limit: int | None = None, offset: int = 0) -> tuple[Summary, ...]:
        """The results, newest first. A damaged one is listed too, as not readable.

        Args:
            limit: how many at the most; None for all.
            offset: how many to pass over.

        Raises:
            StoreError: BAD_RESULT when the root itself may not be read.
        """
        names = self._names()[::-1]
        return tuple(self._summary(name) for name in names[offset:None if limit is None else offset + limit])

    def count(self) -> int:
        """How many results there are."""
        return len(self._names())

    def get(self, name: str) -> SavedResult:
        """Where a result is and which files it has.

        Raises:
            RequestError: NOT_FOUND for a name that is not there or not one of ours.
        """
        folder = self._folder(name)
        return SavedResult(name, folder, tuple(folder / f for f in FILES if folders.is_file(folder / f)))

    def open(self, name: str) -> Result:
        """A saved result as it was, with the sound and the embeddings.

        Raises:
            RequestError: NOT_FOUND.
            StoreError: BAD_RESULT when files are missing, damaged, or from a newer version.
        """
        folder = self._folder(name)
        try:
            return result_json.decode(
                _real(folder / "result.json").read_text("utf-8"),
                result_files.read_wav(_real(folder / "processed_audio.wav")),
                _array(folder / "embedding.npy"),
                _array(folder / "frame_embeddings.npy"),
            )
        except _UNREADABLE as error:
            raise StoreError("BAD_RESULT", name=name, reason=_reason(error)) from error

    def file(self, name: str, filename: str) -> Path:
        """One file of a result, safe to hand out.

        Raises:
            RequestError: NOT_FOUND; NO_SUCH_FILE when the folder has no such file or it is a link.
        """
        folder = self._folder(name)
        if filename not in FILES or not folders.is_file(folder / filename):
            raise RequestError("NO_SUCH_FILE", name=filename[:80])
        return folder / filename

    def zip(self, name: str, target: Path | BinaryIO) -> None:
        """All files of a result as one zip: ``name/file``, bytes equal to the folder's.

        Args:
            name: the result.
            target: a path, or something open for binary writing.

        Raises:
            RequestError: NOT_FOUND.
            StoreError: DISK_FULL or CANNOT_SAVE.
        """
        saved = self.get(name)
        try:
            with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
                for path in saved.files:
                    archive.write(path, f"{name}/{path.name}")
        except OSError as error:
            if not folders.is_folder(saved.path):  # deleted meanwhile
                raise RequestError("NOT_FOUND", what=name) from error
            raise self._failure(error) from error

    def delete(self, name: str) -> None:
        """Take a result away: for every reader it is gone at once.

        Raises:
            RequestError: NOT_FOUND.
            StoreError: CANNOT_SAVE when the system refuses; then it is still whole.
        """
        folder = self._folder(name)
        try:
            folders.remove(folder)
        except FileNotFoundError as error:
            raise RequestError("NOT_FOUND", what=name) from error
        except OSError as error:
            raise self._failure(error) from error

    def sweep(self) -> int:
        """Remove what killed processes left; to be called at start. Returns how many leftovers went.

        Raises:
            StoreError: BAD_RESULT when the root may not be read.
        """
        try:
            return folders.sweep(self.root)
        except OSError as error:
            raise StoreError("BAD_RESULT", name=self.root.name, reason=error.strerror) from error

    def usage(self) -> Usage:
        """Number and size of the results, and the free space of their disk."""
        names = self._names()
        return Usage(len(names), sum(folders.size_of(self.root / name) for name in names), self._free_bytes())

    def trim(self) -> int:
        """Delete the oldest results beyond ``limits.results_max`` and ``limits.results_gb``.

        One younger than ``KEPT_S`` stays, whatever the bounds say. ``save`` calls this every TRIM_EVERY times.

        Returns:
            How many were deleted.
        """
        names = self._names()
        sizes = [folders.size_of(self.root / name) for name in names]
        n_bytes, n_left, deleted = sum(sizes), len(names), 0
        for name, size in zip(names, sizes, strict=True):
            if n_left <= self._limits.results_max and n_bytes <= self._limits.results_gb * 1e9:
                break
            with contextlib.suppress(OSError, RequestError, StoreError):  # another process may be faster
                if time.time() - (self.root / name).stat().st_mtime > KEPT_S:
                    self.delete(name)
                    n_left, n_bytes, deleted = n_left - 1, n_bytes - size, deleted + 1
        return deleted

    def _trim_now_and_then(self) -> None:
        with self._lock:
            due = self._saves % TRIM_EVERY == 0
            self._saves += 1
        if due:
            with contextlib.suppress(StoreError):  # the result is saved; whoever lists them will hear of it
                self.trim()

    def _names(self) -> tuple[str, ...]:
        """Names of all results, oldest first."""
        found = []
        try:
            for path in self.root.iterdir():
                match = _NAME.fullmatch(path.name)
                if match and folders.is_folder(path):
                    found.append((match[1], int(match[2] or 1), path.name))
        except (FileNotFoundError, NotADirectoryError):  # before the first save
            return ()
        except OSError as error:
            raise StoreError("BAD_RESULT", name=self.root.name, reason=error.strerror) from error
        return tuple(name for _, _, name in sorted(found))

    def _folder(self, name: str) -> Path:
        if not _NAME.fullmatch(name) or not folders.is_folder(self.root / name):
            raise RequestError("NOT_FOUND", what=name[:80])
        return self.root / name

    def _summary(self, name: str) -> Summary:
        match = _NAME.fullmatch(name)
        stamp = match[1] if match else ""
        try:
            created = datetime.strptime(stamp, "%Y%m%d_%H%M%S")
        except ValueError:  # fits the pattern but is no date
            created = datetime.min
        try:
            with _real(self.root / name / "result.json").open("rb") as file:
                data = result_json.decode_head(file.read(HEAD_BYTES).decode("utf-8", "replace"))
            return Summary(name, created, True, str(data["emotion"]), float(data["confidence"]),
                           str(data["granularity"]), data.get("duration_s"), data.get("source", {}).get("name"),
                           data.get("model", {}).get("name"))
        except _UNREADABLE:
            return Summary(name, created, readable=False)

    def _free_bytes(self) -> int:
        at = self.root.absolute()
        try:
            while not at.exists() and at != at.parent:
                at = at.parent
            return shutil.disk_usage(at).free
        except OSError as error:
            raise StoreError("CANNOT_SAVE", reason=error.strerror) from error

    def _disk_full(self) -> StoreError:
        return StoreError("DISK_FULL", free_mb=self._free_bytes() / 1e6, path=str(self.root))

    def _failure(self, error: OSError) -> StoreError:
        if error.errno in _FULL:
            return self._disk_full()
        return StoreError("CANNOT_SAVE", reason=error.strerror or type(error).__name__)


def _contents(result: Result) -> Iterator[tuple[str, Iterable[bytes]]]:
    yield "processed_audio.wav", result_files.wav_pieces(result.waveform.samples)
    if result.embedding is not None:
        yield "embedding.npy", result_files.npy_pieces(result.embedding)
    if result.frame_embeddings is not None:
        yield "frame_embeddings.npy", result_files.npy_pieces(result.frame_embeddings)
    if result.frames is not None and result.timeline is not None:
        yield "frames.csv", result_files.frames_csv_pieces(result.frames, result.timeline)
    yield "result.json", result_json.encode(result)


def _real(path: Path) -> Path:
    if not folders.is_file(path):
        raise FileNotFoundError(errno.ENOENT, "not there, or not a plain file", path.name)
    return path


def _array(path: Path) -> Floats | None:
    return np.load(path, allow_pickle=False) if folders.is_file(path) else None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{Path(str(error.filename)).name}: {error.strerror}"
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    return str(error)[:200] or type(error).__name__


