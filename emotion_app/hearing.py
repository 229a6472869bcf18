"""Many clips through one analyzer: several in work at once, a failure stops nobody, a full queue is waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from emotion_app import audio
from emotion_app.analyzer import Analyzer, Heard, Options, Source
from emotion_app.baseline import pooled
from emotion_app.errors import AudioError, BusyError, EmotionError
from emotion_app.manifest import Item
from emotion_app.types import SAMPLE_RATE, BaselineRule, Floats, ModelInfo, Waveform

T = TypeVar("T")
R = TypeVar("R")
JOBS_MAX = 32  # half of the default queue: a batch beside other work must not fill it
BUSY_WAIT_S = 0.2


@dataclass(frozen=True, eq=False)
class Done(Generic[T, R]):
    """What became of one task: a value, or the error that it ended with."""

    task: T
    value: R | None
    error: EmotionError | None


@dataclass(frozen=True, eq=False)
class Heards:
    """Pooled logits of many clips; ``items[i]`` belongs to row i.

    Attributes:
        items: the clips that could be analyzed.
        plain: (n, 9) mean frame logits.
        reference: (n, 9) mean reference logits; the same as ``plain`` for a model without a reference head.
        seconds: of sound in all.
        model: which model answered.
        rule: its numbers for baselines, or None.
        failures: the clips that could not be analyzed, each with its error.
    """

    items: tuple[Item, ...]
    plain: Floats
    reference: Floats
    seconds: float
    model: ModelInfo | None
    rule: BaselineRule | None
    failures: tuple[tuple[Item, EmotionError], ...]


def each(
    tasks: Iterable[T], work: Callable[[T], R], jobs: int, cancel: threading.Event | None = None
) -> Iterator[Done[T, R]]:
    """Do all tasks, ``jobs`` at a time; answers come as they are ready.

    ``cancel`` starts no more tasks; closing the iterator, Ctrl-C and any other exception set it first.

    Args:
        tasks: taken one by one, never more than are in work.
        work: may raise EmotionError (that is the task's answer) and is called again when it raises BUSY.
        jobs: threads, at most JOBS_MAX.
        cancel: stops the waiting for a full queue as well; ``work`` should look at it too.
    """
    stop = cancel or threading.Event()
    jobs = max(1, min(jobs, JOBS_MAX))
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="clips")
    running: set[Future[Done[T, R]]] = set()
    try:
        for task in tasks:
            if stop.is_set():
                break
            running.add(pool.submit(_one, task, work, stop))
            if len(running) >= jobs:
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in ended)
        while running:
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in ended)
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _one(task: T, work: Callable[[T], R], stop: threading.Event) -> Done[T, R]:
    while True:
        try:
            return Done(task, work(task), None)
        except BusyError as error:
            if error.code != "BUSY" or stop.wait(BUSY_WAIT_S):
                return Done(task, None, error)
        except EmotionError as error:
            return Done(task, None, error)


def source_of(item: Item, analyzer: Analyzer) -> Source:
    """What to analyze for an item: the file, or the part of it that the list names.

    Raises:
        AudioError: EMPTY when the part is outside the file, and what ``audio.load`` raises.
    """
    if item.start_s is None and item.end_s is None:
        return item.path
    whole = audio.load(item.path, limits=analyzer.settings.limits)
    first = round(max(item.start_s or 0.0, 0.0) * SAMPLE_RATE)
    last = len(whole.samples) if item.end_s is None else round(item.end_s * SAMPLE_RATE)
    part = whole.samples[first:last]
    if not len(part):
        raise AudioError("EMPTY")
    return Waveform(np.ascontiguousarray(part), whole.name, whole.notes, whole.origin)


def hear_all(
    analyzer: Analyzer,
    items: Sequence[Item],
    model: str | None = None,
    *,
    jobs: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Heards:
    """Pooled logits of all clips of a list, in its order.

    Args:
        analyzer: whose models, queue and limits are used.
        items: the clips.
        model: as in ``Options.model``.
        jobs: clips in work at once.
        progress: called with (done, all) after each clip.
    """

    def work(row: int) -> tuple[Floats, Floats, float]:
        heard = analyzer.hear(source_of(items[row], analyzer), Options(model=model), name=Path(items[row].name).name)
        last[:] = [heard]
        return (*pooled(heard.output), heard.waveform.duration_s)

    last: list[Heard] = []  # any of them knows the model
    rows: dict[int, tuple[Floats, Floats, float]] = {}
    failures: dict[int, EmotionError] = {}
    for number, done in enumerate(each(range(len(items)), work, jobs), start=1):
        if done.error is not None:
            failures[done.task] = done.error
        elif done.value is not None:
            rows[done.task] = done.value
        if progress is not None:
            progress(number, len(items))
    order = sorted(rows)
    loaded = last[0].loaded if last else None
    return Heards(
        items=tuple(items[row] for row in order),
        plain=_stack([rows[row][0] for row in order]),
        reference=_stack([rows[row][1] for row in order]),
        seconds=sum(rows[row][2] for row in order),
        model=loaded.engine.info if loaded else None,
        rule=analyzer.rule(loaded) if loaded else None,
        failures=tuple((items[row], failures[row]) for row in sorted(failures)),
    )


def _stack(rows: list[Floats]) -> Floats:
    return np.stack(rows) if rows else np.zeros((0, 9), np.float32)
