"""Inputs and outputs of a batch: which clips there are, the growing results.jsonl, and the tables made of it.

results.jsonl is the truth: a line is written when its clip is done and never changed. The tables are made of it anew
at the end of each run, so a run that was killed loses nothing but its tables, until the next one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from emotion_app.errors import RequestError, StoreError
from emotion_app.labels import KEYS
from emotion_app.manifest import SUFFIXES as MANIFESTS
from emotion_app.manifest import Item, read_manifest
from emotion_app.result_files import BOM, csv_line

RESULTS, TABLE, SEGMENTS = "results.jsonl", "results.csv", "segments.csv"
MEDIA = frozenset({
    ".wav", ".wave", ".mp3", ".m4a", ".m4b", ".aac", ".ogg", ".oga", ".opus", ".flac", ".webm", ".wma", ".amr",
    ".3gp", ".3g2", ".aif", ".aiff", ".aifc", ".caf", ".au", ".snd", ".ac3", ".mka", ".mp2", ".mpga", ".mp4", ".m4v",
    ".mov", ".mkv", ".avi", ".flv", ".ts", ".mpg", ".mpeg", ".wmv", ".w64", ".rf64", ".spx", ".ape", ".wv", ".tta",
    ".split",
})  # what a folder is searched for; a file named by itself may have any suffix
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Collected:
    """The clips of all inputs in their order, and how many files in the folders were passed over."""

    items: tuple[Item, ...]
    passed_over: int = 0


def collect(inputs: Sequence[Path], out: Path) -> Collected:
    """Clips of files, folders (searched to the bottom) and lists.

    Args:
        inputs: files, folders, or lists (``.csv``, ``.tsv``, ``.jsonl``, ``.json``).
        out: the folder of the results, which is not searched.

    Raises:
        RequestError: NO_SUCH_FILE, BAD_MANIFEST, or NO_INPUT when nothing is found.
    """
    items: list[Item] = []
    passed_over = 0
    for path in inputs:
        if path.is_dir():
            found, others = _search(path, out.resolve())
            items += found
            passed_over += others
        elif path.suffix.lower() in MANIFESTS:
            items += read_manifest(path).items
        else:
            items.append(Item(path, str(path)))
    if not items:
        raise RequestError("NO_INPUT")
    return Collected(tuple(dict.fromkeys(items)), passed_over)  # a file named twice is done once


def _search(folder: Path, out: Path) -> tuple[list[Item], int]:
    found, others = [], 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and (Path(place) / f).resolve() != out)
        for name in sorted(names):
            if Path(name).suffix.lower() in MEDIA and not name.startswith("."):
                found.append(Item(Path(place) / name, str(Path(place) / name)))
            else:
                others += 1
    return found, others


def content_of(item: Item) -> str:
    """Hash of the file's bytes and of the part that is meant.

    Raises:
        RequestError: NO_SUCH_FILE when it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=20)
    try:
        with item.path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise RequestError("NO_SUCH_FILE", name=item.name) from error
    digest.update(repr((item.start_s, item.end_s)).encode())
    return digest.hexdigest()


class ResultLog:
    """results.jsonl of one batch folder, open for more lines. One thread writes.

    Args:
        folder: of the batch; made if missing.
        resume: go on with what is there.

    Raises:
        RequestError: OUT_IN_USE when there is something and ``resume`` is not set.
        StoreError: CANNOT_SAVE.
    """

    def __init__(self, folder: Path, *, resume: bool) -> None:
        self.folder = folder
        self.path = folder / RESULTS
        self._done: dict[tuple[str, str], dict[str, int]] = {}  # (content, options) -> offset of its line by path
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not resume and self.path.exists() and self.path.stat().st_size:
                raise RequestError("OUT_IN_USE", path=str(folder))
            self._file: BinaryIO = self.path.open("a+b")
            self._end_torn_line()
            for offset, row in self._rows():
                if "error" not in row:
                    self._done.setdefault((row["content"], row["options"]), {})[row["path"]] = offset
        except OSError as error:
            raise StoreError("CANNOT_SAVE", reason=str(error)) from error

    def has(self, path: str, content: str, options: str) -> bool:
        """Whether this clip is done."""
        return path in self._done.get((content, options), {})

    def twin(self, content: str, options: str) -> dict[str, Any] | None:
        """The row of a clip with the same content that was done with the same options before this run, or None."""
        offsets = self._done.get((content, options))
        if not offsets:
            return None
        with self.path.open("rb") as file:
            file.seek(next(iter(offsets.values())))
            row: dict[str, Any] = json.loads(file.readline())
        return row

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a line, at once.

        Raises:
            StoreError: CANNOT_SAVE.
        """
        try:
            self._file.write(_line(row))
            self._file.flush()
        except OSError as error:
            raise StoreError("CANNOT_SAVE", reason=str(error)) from error

    def close(self, order: Sequence[str]) -> None:
        """Make the tables of all lines and let go of the file.

        Args:
            order: paths in the order of the table; others follow as they come.

        Raises:
            StoreError: CANNOT_SAVE.
        """
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._write_tables(order)
        except OSError as error:
            raise StoreError("CANNOT_SAVE", reason=str(error)) from error
        finally:
            self._file.close()

    def _end_torn_line(self) -> None:
        """A kill in the middle of a line leaves a piece of one: it is closed, and passed over when reading."""
        if self._file.seek(0, os.SEEK_END):
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")

    def _rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        with self.path.open("rb") as file:
            offset = 0
            for line in file:
                with contextlib.suppress(ValueError):
                    row = json.loads(line)
                    if isinstance(row, dict) and {"path", "content", "options"} <= set(row):
                        yield offset, row
                offset += len(line)

    def _write_tables(self, order: Sequence[str]) -> None:
        newest = {row["path"]: offset for offset, row in self._rows()}
        place = {path: i for i, path in enumerate(order)}
        paths = sorted(newest, key=lambda path: place.get(path, len(place)))
        by_frame = False
        with self.path.open("rb") as file, _published(self.folder / TABLE) as table, \
                _published(self.folder / SEGMENTS) as segments:  # fmt: skip
            table.write(BOM + csv_line(COLUMNS).encode())
            segments.write(BOM + csv_line(SEGMENT_COLUMNS).encode())
            for path in paths:
                file.seek(newest[path])
                row = json.loads(file.readline())
                table.write(csv_line(_table_row(row)).encode("utf-8", "replace"))
                for cells in _segment_rows(row):
                    by_frame = True
                    segments.write(csv_line(cells).encode("utf-8", "replace"))
        if not by_frame:
            (self.folder / SEGMENTS).unlink()


def _line(row: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except UnicodeEncodeError:  # a file name that is no UTF-8: escaped, it can still be told from others
        return json.dumps(row, allow_nan=False).encode() + b"\n"


COLUMNS = ("path", "speaker", "group", "duration_s", "emotion", "confidence", *KEYS, "shown", "plain_emotion",
           "plain_confidence", "baseline", "baseline_clips", "model", "notes", "error_code", "error")  # fmt: skip
SEGMENT_COLUMNS = ("path", "start_s", "end_s", "emotion", "confidence", *KEYS)


def _table_row(row: Mapping[str, Any]) -> list[object]:
    """Scores are those shown; with a baseline the plain answer stands beside them."""
    first = [row["path"], row.get("speaker") or "", row.get("group") or ""]
    if "error" in row:
        empty = [""] * (len(COLUMNS) - len(first) - 2)
        return [*first, *empty, row["error"]["code"], row["error"]["en"]]
    judged = row["adjusted"]
    seen = judged or row
    notes = " ".join(warning["code"] for warning in row["warnings"])
    return [*first, row["duration_s"], seen["emotion"], seen["confidence"], *(seen["scores"][key] for key in KEYS),
            row["shown"], row["emotion"], row["confidence"], judged["baseline"] if judged else "",
            judged["count"] if judged else "", row["model"]["name"], notes, "", ""]  # fmt: skip


def _segment_rows(row: Mapping[str, Any]) -> Iterator[list[object]]:
    for segment in () if "error" in row else row["adjusted_segments"] or row["segments"]:
        yield [row["path"], segment["start_s"], segment["end_s"], segment["emotion"], segment["confidence"],
               *(segment["scores"][key] for key in KEYS)]  # fmt: skip


@contextlib.contextmanager
def _published(path: Path) -> Iterator[BinaryIO]:
    """A file that is there whole or not at all."""
    aside = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            aside.unlink()
