"""Cache of log-mel frames: every clip as it is, and disturbed copies of the clips that are trained on.

Files in the cache: ``<rendition>-<shard>.mels.npy`` (frames, 80) float16 and ``.ends.npy`` (clips,), written aside
and renamed, so an interrupted run goes on where it stopped. Values are log10 mel power after the clip's gain.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from emotion_app.errors import ConfigError
from emotion_app.models.melspec import LEVEL, TINY, MelPower, level
from emotion_app.types import MIN_SAMPLES, Floats
from training import waves
from training.manifest import Clip

SHARD = 500  # clips in one file


@dataclass(frozen=True)
class Job:
    """One clip in one rendition; rendition 0 is the clip itself."""

    clip: Clip
    rendition: int
    seed: int
    how: waves.Rendition


def log_mels(samples: Floats, mel_power: MelPower) -> Floats:
    """(M, 80) float32 log10 mel power, shifted so that the active frames have the mean ``LEVEL``."""
    if len(samples) < MIN_SAMPLES:
        samples = np.pad(samples, (0, MIN_SAMPLES - len(samples)))
    power = mel_power(torch.from_numpy(samples)).numpy()
    return np.log10(np.maximum(power, TINY)) + (LEVEL - level(power))


def build(clips: Sequence[Clip], folder: Path, renditions: int, how: waves.Rendition, seed: int, workers: int) -> None:
    """Write what is missing of renditions 0 to ``renditions``; the order of ``clips`` is the order on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    _check_owner(clips, folder)
    shards = [clips[at : at + SHARD] for at in range(0, len(clips), SHARD)]
    todo = [(r, s) for r in range(renditions + 1) for s in range(len(shards)) if not _ends(folder, r, s).exists()]
    with ProcessPoolExecutor(workers, initializer=_single_thread) as pool:
        for rendition, number in track(todo, description="log-mels"):
            jobs = [Job(clip, rendition, seed, how) for clip in shards[number]]
            mels = list(pool.map(_compute, jobs, chunksize=16))
            _write(_mels(folder, rendition, number), np.concatenate(mels))
            _write(_ends(folder, rendition, number), np.cumsum([len(m) for m in mels]))


class Cache:
    """The frames on disk, mapped into memory.

    Args:
        folder: where ``build`` wrote.
        n_clips: how many clips it was built for.
        rendition: which copy.
    """

    def __init__(self, folder: Path, n_clips: int, rendition: int) -> None:
        numbers = range(-(-n_clips // SHARD))
        self._mels = [np.load(_mels(folder, rendition, n), mmap_mode="r") for n in numbers]
        self._ends = [np.load(_ends(folder, rendition, n)) for n in numbers]

    def __getitem__(self, index: int) -> Floats:
        """(M, 80) float32 of clip ``index``."""
        shard, at = divmod(index, SHARD)
        ends = self._ends[shard]
        return self._mels[shard][ends[at - 1] if at else 0 : ends[at]].astype(np.float32)


def _check_owner(clips: Sequence[Clip], folder: Path) -> None:
    """A cache belongs to one list of clips: with another list every number would point to a wrong clip."""
    mark, mine = folder / "clips.sha256", sha256("\n".join(str(c.path) for c in clips).encode()).hexdigest()
    if mark.exists() and mark.read_text() != mine:
        raise ConfigError("BAD_SETTING", reason=f"{folder} was made for other clips; name another cache folder")
    mark.write_text(mine)


def _single_thread() -> None:
    torch.set_num_threads(1)


def _compute(job: Job) -> np.ndarray:
    samples = waves.read(job.clip.path)
    if job.rendition:
        key = [job.seed, job.rendition, *job.clip.path.name.encode()]  # the same copy on every machine and in any order
        samples = waves.disturb(samples, job.how, np.random.default_rng(key))
    return log_mels(samples, MelPower()).astype(np.float16)


def _write(path: Path, array: np.ndarray) -> None:
    aside = path.with_suffix(".partial")
    with aside.open("wb") as file:
        np.save(file, array)
    os.replace(aside, path)


def _mels(folder: Path, rendition: int, shard: int) -> Path:
    return folder / f"{rendition}-{shard:04d}.mels.npy"


def _ends(folder: Path, rendition: int, shard: int) -> Path:
    return folder / f"{rendition}-{shard:04d}.ends.npy"
