"""The child process of ``hub.fetch``: runs a hub's own client and prints one JSON line a moment.

``python -m emotion_app.models.download`` with a job on standard input. Lines: ``{"done": bytes, "total": bytes}``,
then ``{"ready": true}`` or ``{"error": "why"}``.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

TICK_S = 0.5


@dataclass(frozen=True)
class Listed:
    """A file as the hub lists it; ``sha256`` only where the hub knows it."""

    path: str
    size: int
    sha256: str | None


def main() -> int:
    """Do the job on standard input; 0 when all files are there and their hashes are right."""
    job = json.load(sys.stdin)
    out, sys.stdout = sys.stdout, sys.stderr  # the clients print; our lines stay clean
    directory = Path(job["directory"])
    try:
        from filelock import FileLock  # a dependency of both clients

        hub = _modelscope if job["hub"] == "modelscope" else _huggingface
        files, revision, get = hub(job["repo"], directory, job["files"])
        total = sum(file.size for file in files)
        missing = total - _bytes_in(directory)
        if shutil.disk_usage(directory).free < missing + job["keep_free_mb"] * 1e6:
            return _say(out, error="disk")
        with _progress(out, directory, total), FileLock(directory / ".lock"):  # one process at a time; others wait
            get()
        wrong = [file.path for file in files if not _right(directory / file.path, file)]
        for path in wrong:
            (directory / path).unlink(missing_ok=True)  # the next attempt fetches it anew
        if wrong:
            return _say(out, error=f"size or SHA-256 of {', '.join(wrong)} differs from what the hub lists")
        record = {"hub": job["hub"], "repo": job["repo"], "revision": revision}
        aside = directory / ".download.json.partial"
        aside.write_text(json.dumps(record), encoding="utf-8")
        os.replace(aside, directory / "download.json")
    except OSError as error:
        return _say(out, error="disk" if error.errno == 28 else _short(error))
    except Exception as error:  # noqa: BLE001 - the clients raise trees of their own; the parent needs one line
        return _say(out, error=_short(error))
    _say(out, done=total, total=total)
    return _say(out, ready=True)


def _modelscope(repo: str, directory: Path, patterns: Sequence[str]) -> tuple[list[Listed], str, Callable[[], object]]:
    from modelscope.hub.snapshot_download import snapshot_download
    from modelscope_hub import HubApi

    entries = HubApi().list_repo_files(repo, "model", revision="master", recursive=True)
    files = [
        Listed(e.path, int(e.size or 0), e.sha256 or None)
        for e in entries
        if not e.is_dir and _wanted(e.path, patterns)
    ]
    keep = {"local_dir": str(directory), "allow_patterns": list(patterns)}
    return files, "master", lambda: snapshot_download(repo, revision="master", **keep)


def _huggingface(repo: str, directory: Path, patterns: Sequence[str]) -> tuple[list[Listed], str, Callable[[], object]]:
    from huggingface_hub import HfApi

    info = HfApi().model_info(repo, files_metadata=True)
    found = [s for s in info.siblings or () if _wanted(s.rfilename, patterns)]
    files = [Listed(s.rfilename, int(s.size or 0), s.lfs.sha256 if s.lfs else None) for s in found]
    revision = str(info.sha)
    return files, revision, lambda: [_huggingface_file(repo, revision, file, directory) for file in files]


def _huggingface_file(repo: str, revision: str, file: Listed, directory: Path) -> None:
    """One file by the client's ``http_get``: its ``snapshot_download`` throws a broken download away (2.4.0)."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    target = directory / file.path
    if _right(target, file):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".incomplete")
    have = part.stat().st_size if part.exists() else 0
    if have > file.size:
        part.unlink()
        have = 0
    with part.open("r+b" if have else "wb") as out:
        out.seek(have)
        url = hf_hub_url(repo, file.path, revision=revision)
        http_get(url, out, resume_size=have, headers=build_hf_headers(), expected_size=file.size)
    if not _right(part, file):
        part.unlink()  # the next attempt fetches it anew
        raise ValueError(f"size or SHA-256 of {file.path} differs from what the hub lists")
    os.replace(part, target)


def _wanted(path: str, patterns: Sequence[str]) -> bool:
    """Whether a listed file is asked for; a name that would leave the directory never is."""
    parts = PurePosixPath(path).parts
    if not parts or parts[0] == "/" or ".." in parts or "\\" in path or ":" in path:
        return False
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _right(path: Path, file: Listed) -> bool:
    if not path.is_file() or (file.size and path.stat().st_size != file.size):
        return False
    if file.sha256 is None:
        return True
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == file.sha256


@contextlib.contextmanager
def _progress(out: TextIO, directory: Path, total: int) -> Iterator[None]:
    """Count what lies in the directory, parts included: true for both clients and for a continued download."""
    over = threading.Event()

    def tick() -> None:
        while not over.wait(TICK_S):
            _say(out, done=min(total, _bytes_in(directory)), total=total)

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _bytes_in(directory: Path) -> int:
    count = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):  # a part may be merged between listing and asking
            count += path.stat().st_size if path.is_file() else 0
    return count


def _say(out: TextIO, **event: Any) -> int:
    out.write(json.dumps(event) + "\n")
    out.flush()
    return 1 if "error" in event else 0


def _short(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


if __name__ == "__main__":
    sys.exit(main())
