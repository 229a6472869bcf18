"""Uploads are decoded in processes of their own: a file that crashes, hangs or bloats FFmpeg takes none of the server.

Started with ``subprocess`` and not with ``multiprocessing``: that would import the server's main module (torch, Gradio)
into each worker, or fork a process that has threads.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import BufferTooShort
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emotion_app import errors
from emotion_app.audio.caps import Caps
from emotion_app.audio.sources import open_regular
from emotion_app.errors import AudioError, BusyError, EmotionError
from emotion_app.notes import Note
from emotion_app.types import SAMPLE_RATE, Floats, Origin, Waveform

if TYPE_CHECKING:
    from emotion_app.settings import Limits

_BOOT = "import sys; sys.path[:] = sys.argv[1:]; from emotion_app.audio.worker import main; main()"
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "PYTHONHOME", "VIRTUAL_ENV", "TMPDIR")  # no tokens
_START_S = 60.0  # a cold start on a loaded machine; 0.3 s is usual
_JOBS_MAX = 500  # then a worker is replaced, in case FFmpeg leaks
_HEAD_BYTES = 1 << 16


class Decoder:
    """Decodes files in at most ``limits.decode_workers`` processes, started when first needed. Thread-safe.

    Args:
        limits: upload size, clip length, wall time and memory of one decode.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._slots = threading.BoundedSemaphore(limits.decode_workers)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._closed = False

    def load(self, path: str | Path, name: str | None = None, max_s: float | None = None) -> Waveform:
        """Decode the file at ``path``; see ``audio.load``.

        Args:
            path: a regular file.
            name: display name, the file's own by default.
            max_s: longest sound, ``limits.clip_s`` by default.

        Raises:
            AudioError: as ``audio.load``, and TOO_LARGE, DECODE_LIMIT.
            BusyError: BUSY when no worker came free in time, SHUTTING_DOWN after ``close``.
        """
        limits = self._limits
        with open_regular(path) as file:  # refused here, so that a pipe never reaches a worker
            if os.fstat(file.fileno()).st_size > limits.upload_mb * 1e6:
                raise AudioError("TOO_LARGE", limit_mb=limits.upload_mb)
        caps = Caps.of(limits, limits.clip_s if max_s is None else max_s)
        job = {"path": os.fspath(Path(path).absolute()), "name": name or str(path), "caps": caps.__dict__,
               "wall_s": limits.decode_wall_s, "memory_mb": limits.decode_memory_mb}  # fmt: skip
        if not self._slots.acquire(timeout=limits.deadline_s):
            raise BusyError("BUSY", retry_after_s=limits.decode_wall_s)
        try:
            return self._run(job, caps)
        finally:
            self._slots.release()

    def close(self) -> None:
        """End every worker; a decode that is running fails with SHUTTING_DOWN."""
        with self._lock:
            self._closed = True
            workers = list(self._all)
            self._all.clear()
            self._idle.clear()
        for worker in workers:
            worker.kill()

    def _run(self, job: dict[str, Any], caps: Caps) -> Waveform:
        worker = self._take()
        keep = False
        try:
            wave = worker.decode(job, caps)
            keep = True
            return wave
        except EmotionError as error:
            if self._closed:
                raise BusyError("SHUTTING_DOWN") from error
            keep = worker.usable
            raise
        finally:
            self._give_back(worker, keep)

    def _take(self) -> _Worker:
        with self._lock:
            if self._closed:
                raise BusyError("SHUTTING_DOWN")
            while self._idle:
                worker = self._idle.pop()
                if worker.alive:
                    return worker
                self._all.discard(worker)
                worker.kill()
            worker = _Worker()
            self._all.add(worker)
            return worker

    def _give_back(self, worker: _Worker, keep: bool) -> None:
        with self._lock:
            if keep and not self._closed and worker.jobs < _JOBS_MAX:
                self._idle.append(worker)
                return
            self._all.discard(worker)
        worker.kill()


class _Worker:
    """One process and its two pipes."""

    def __init__(self) -> None:
        environment = {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ}
        environment.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", PYTHONIOENCODING="utf-8")
        path = [os.path.abspath(entry) for entry in sys.path]
        self._process = subprocess.Popen([sys.executable, "-c", _BOOT, *path], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, env=environment, cwd="/")  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None  # both are PIPE
        self._jobs = Connection(os.dup(self._process.stdin.fileno()), readable=False)
        self._replies = Connection(os.dup(self._process.stdout.fileno()), writable=False)
        self._process.stdin.close()
        self._process.stdout.close()
        self._ready = False
        self.usable = True
        self.jobs = 0

    @property
    def alive(self) -> bool:
        return self.usable and self._process.poll() is None

    def kill(self) -> None:
        """End the process, whatever it is doing, and wait for it."""
        self.usable = False
        self._process.kill()
        self._process.wait()

    def decode(self, job: dict[str, Any], caps: Caps) -> Waveform:
        """Run one job. Afterwards ``usable`` says whether the process can take another."""
        self.jobs += 1
        self._await_ready()
        started = time.monotonic()
        # One timer covers every way to hang, even in the middle of a reply: killing closes the pipe.
        timer = threading.Timer(job["wall_s"], self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            self._jobs.send_bytes(json.dumps(job).encode())
            head = json.loads(self._replies.recv_bytes(_HEAD_BYTES))
            if "error" in head:
                self.usable = not head.get("retire")
                raise _error(head)
            return self._receive(head, caps)
        except (EOFError, OSError, BufferTooShort, ValueError, KeyError, TypeError) as error:
            self.usable = False
            raise self._died(job, time.monotonic() - started) from error
        finally:
            timer.cancel()

    def _await_ready(self) -> None:
        if self._ready:
            return
        try:
            if not self._replies.poll(_START_S):
                raise EOFError
            self._replies.recv_bytes(16)
        except (EOFError, OSError) as error:
            self.usable = False
            raise AudioError("UNDECODABLE", container="?", codec="?", reason="The decoder did not start") from error
        self._ready = True

    def _receive(self, head: dict[str, Any], caps: Caps) -> Waveform:
        n_samples = int(head["n_samples"])
        if not 0 < n_samples <= caps.max_s * SAMPLE_RATE + 1:
            raise ValueError(f"{n_samples} samples")
        samples: Floats = np.empty(n_samples, np.float32)
        view, filled = memoryview(samples).cast("B"), 0
        while filled < len(view):
            filled += self._replies.recv_bytes_into(view[filled:])
        notes = tuple(Note(str(code), facts) for code, facts in head["notes"])
        return Waveform(samples, str(head["name"]), notes, Origin(**head["origin"]))

    def _died(self, job: dict[str, Any], elapsed_s: float) -> AudioError:
        self._process.kill()  # a no-op when it ended by itself: the first exit code stays
        code = self._process.wait()
        if elapsed_s >= job["wall_s"]:
            return AudioError("DECODE_LIMIT", limit_s=job["wall_s"])
        cause = signal.Signals(-code).name if code < 0 else f"exit {code}"
        return AudioError("UNDECODABLE", container="?", codec="?", reason=f"It made the decoder stop ({cause})")


def _error(head: dict[str, Any]) -> EmotionError:
    kind = getattr(errors, head["error"], AudioError)
    return kind(head["code"], **head["facts"])
