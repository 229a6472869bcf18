"""The decoder process: reads jobs from its standard input and answers on its standard output until that closes.

It imports only numpy, soxr and PyAV, holds its own memory and time limits, and answers in JSON and raw samples: if a
hostile file takes it over, nothing it can send is executed by the server.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from emotion_app.audio import decode_reader
from emotion_app.audio.caps import Caps
from emotion_app.audio.sources import open_source
from emotion_app.errors import EmotionError
from emotion_app.types import SAMPLE_RATE, Waveform

SEND_SAMPLES = 1 << 18  # 1 MiB a message
_ALARM_GRACE_S = 5  # the parent kills at the wall limit; this ends the process if there is no parent any more


def main() -> None:
    """Serve jobs one after the other."""
    import av  # noqa: F401  # loaded before the memory limit is measured

    replies = Connection(os.dup(sys.stdout.fileno()), readable=False)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nothing that prints may fall into the replies
    jobs = Connection(os.dup(sys.stdin.fileno()), writable=False)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it has no business writing files
    resting_bytes = _address_space()
    replies.send_bytes(b"ready")
    while True:
        try:
            job = json.loads(jobs.recv_bytes())
        except EOFError:
            return
        _limit(job, resting_bytes)
        _answer(job, replies)
        signal.alarm(0)


def _answer(job: dict[str, Any], replies: Connection) -> None:
    try:
        with open_source(Path(job["path"]), 0) as reader:
            wave = decode_reader(reader, Caps(**job["caps"]), job["name"])
    except EmotionError as error:
        kind = type(error).__name__
        replies.send_bytes(json.dumps({"error": kind, "code": error.code, "facts": error.facts}).encode())
    except MemoryError:
        replies.send_bytes(json.dumps({"error": "AudioError", "code": "DECODE_LIMIT",
                                       "facts": {"limit_s": job["wall_s"]}, "retire": True}).encode())  # fmt: skip
    else:
        _send(wave, replies)


def _send(wave: Waveform, replies: Connection) -> None:
    head = {
        "n_samples": len(wave.samples),
        "name": wave.name,
        "notes": [[note.code, note.facts] for note in wave.notes],
        "origin": wave.origin.__dict__,
    }
    replies.send_bytes(json.dumps(head).encode())
    for start in range(0, len(wave.samples), SEND_SAMPLES):
        replies.send_bytes(memoryview(np.ascontiguousarray(wave.samples[start : start + SEND_SAMPLES])).cast("B"))


def _limit(job: dict[str, Any], resting_bytes: int) -> None:
    clip_bytes = int(job["caps"]["max_s"] * SAMPLE_RATE * 4)
    soft = resting_bytes + clip_bytes + int(job["memory_mb"] * 1e6)
    resource.setrlimit(resource.RLIMIT_AS, (soft, resource.RLIM_INFINITY))
    signal.alarm(int(job["wall_s"]) + _ALARM_GRACE_S)


def _address_space() -> int:
    """Bytes of address space that this process has mapped at rest; a guess of 1 GiB where there is no /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 1 << 30


if __name__ == "__main__":
    main()
