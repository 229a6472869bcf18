"""Waveforms in, frame outputs out: windows for long clips, exact length-sorted batches, a way down when memory ends.

A clip of at most ``plan.whole_s`` is computed in one piece. A longer one is cut into windows with context on both
sides whose edges are thrown away, so memory does not grow with its length. Work is done in steps (one batch each):
between two steps the caller may report progress, give way to others, or stop.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import numpy as np

from emotion_app.errors import AudioError, BusyError, ModelError
from emotion_app.models import FrameArrays, FrameModel, WindowPlan
from emotion_app.notes import Note
from emotion_app.types import FRAME_RATE, HOP_SAMPLES, MIN_SAMPLES, Floats, FrameOutput, ModelInfo, Waveform, n_frames

log = logging.getLogger(__name__)

MAX_PAD = 0.10  # a batch holds clips within 10 % of its longest: padding more costs more than the batch gains
GPU_AGAIN_S = 60.0  # after falling back to the CPU, try the GPU again this much later

Fraction = float
Steps = Generator[Fraction, None, list[FrameOutput]]


@dataclass(frozen=True)
class _Piece:
    """Frames ``[start, stop)`` of clip ``clip``, computed on frames ``[first, last)``."""

    clip: int
    first: int
    last: int
    start: int
    stop: int

    @property
    def n_samples(self) -> int:
        return (self.last - self.first - 1) * HOP_SAMPLES + MIN_SAMPLES


def windows(total: int, plan: WindowPlan) -> list[tuple[int, int, int, int]]:
    """Cut ``total`` frames by ``plan``: (first, last, start, stop), where ``[start, stop)`` is kept.

    >>> windows(100, WindowPlan(whole_s=10, body_s=1, context_s=1))
    [(0, 100, 0, 100)]
    >>> windows(90, WindowPlan(whole_s=1, body_s=1, context_s=.2))
    [(0, 65, 0, 45), (25, 90, 45, 90)]

    All windows are equally long, so that one set of kernels and buffers serves them all: with lengths that differed by
    a frame an hour took 150 MB more. The first and the last have all their context on their inner side.
    """
    if total <= plan.whole_s * FRAME_RATE:
        return [(0, total, 0, total)]
    context = round(plan.context_s * FRAME_RATE)
    count = -(-total // round(plan.body_s * FRAME_RATE))
    edges = [round(i * total / count) for i in range(count + 1)]
    length = min(total, -(-total // count) + 2 * context)
    starts = [min(max(0, a - context), total - length) for a in edges[:-1]]
    return [(first, first + length, a, b) for first, (a, b) in zip(starts, itertools.pairwise(edges), strict=True)]


@dataclass
class _Sum:
    """What is gathered of one clip."""

    total: int
    keep_features: bool
    done: int = 0
    logits: Floats | None = None
    reference: Floats | None = None
    features: Floats | None = None
    feature_sum: np.ndarray | None = None
    notes: list[Note] = field(default_factory=list)

    def add(self, piece: _Piece, arrays: FrameArrays) -> None:
        kept = slice(piece.start - piece.first, piece.stop - piece.first)
        features = arrays.features[kept]
        if self.logits is None or self.feature_sum is None:
            self.logits = np.empty((self.total, arrays.logits.shape[1]), np.float32)
            self.feature_sum = np.zeros(features.shape[1], np.float64)
            if arrays.reference_logits is not None:
                self.reference = np.empty_like(self.logits)
            if self.keep_features:
                self.features = np.empty((self.total, features.shape[1]), np.float32)
        self.logits[piece.start : piece.stop] = arrays.logits[kept]
        self.feature_sum += features.sum(axis=0, dtype=np.float64)
        if self.reference is not None and arrays.reference_logits is not None:
            self.reference[piece.start : piece.stop] = arrays.reference_logits[kept]
        if self.features is not None:
            self.features[piece.start : piece.stop] = features
        self.done += piece.stop - piece.start

    def output(self) -> FrameOutput:
        if self.logits is None or self.feature_sum is None or not np.isfinite(self.logits).all():
            raise ModelError("INFERENCE_FAILED", reason="the network gave values that are not numbers")
        mean = (self.feature_sum / self.total).astype(np.float32)
        return FrameOutput(self.logits, mean, self.features, self.reference, tuple(self.notes))


class Engine:
    """Runs one model. Not thread-safe: the batcher's thread is the only caller.

    Args:
        model: the network on its preferred device.
        fallback: makes the same network for the CPU; called at most once, when a GPU has no room for one window.
        max_batch: clips computed together at the most.
    """

    def __init__(
        self, model: FrameModel, *, fallback: Callable[[], FrameModel] | None = None, max_batch: int = 8
    ) -> None:
        self._model = model
        self._make_fallback = fallback
        self._fallback: FrameModel | None = None
        self._cpu_until = 0.0
        self._max_batch = max_batch
        self.oom_steps = 0  # how often memory ran out, for the metric
        self._interim: Engine | None = None

    @property
    def info(self) -> ModelInfo:
        """The model that answers now."""
        return self._active().info

    @property
    def model(self) -> FrameModel:
        """The network on its preferred device."""
        return self._model

    @property
    def interim(self) -> Engine:
        """Who computes the passing windows of live streams: itself, or the same weights in a cheaper precision."""
        if self._interim is None:
            make: Callable[[], FrameModel] | None = getattr(self._model, "interim", None)
            self._interim = Engine(make(), max_batch=self._max_batch) if make else self
        return self._interim

    def run(
        self,
        waveforms: Sequence[Waveform],
        *,
        features: bool = False,
        progress: Callable[[Fraction], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> list[FrameOutput]:
        """Frame outputs of all clips, in their order.

        Args:
            waveforms: the clips, of any lengths.
            features: keep the (T, D) features.
            progress: called after each step with the share of frames done.
            cancel: when set, the next step raises CANCELLED.

        Raises:
            AudioError: TOO_SHORT for a clip under 25 ms.
            BusyError: CANCELLED.
            ModelError: INFERENCE_FAILED, OUT_OF_MEMORY.
        """
        steps = self.steps(waveforms, features=features)
        while True:
            if cancel is not None and cancel.is_set():
                steps.close()
                raise BusyError("CANCELLED")
            try:
                fraction = next(steps)
            except StopIteration as stop:
                outputs: list[FrameOutput] = stop.value
                return outputs
            if progress is not None:
                progress(fraction)

    def steps(self, waveforms: Sequence[Waveform], *, features: bool = False) -> Steps:
        """The same work as a generator: yields the share done after each batch, returns the outputs."""
        plan = self._model.plan
        sums, pieces = [], []
        for clip, wave in enumerate(waveforms):
            total = n_frames(len(wave.samples))
            if not total:
                raise AudioError("TOO_SHORT", duration_ms=1000 * wave.duration_s, limit_ms=MIN_SAMPLES / 16)
            cuts = windows(total, plan)
            sums.append(_Sum(total, features))
            if len(cuts) > 1:
                sums[-1].notes.append(Note("windowed", {"window_s": plan.body_s, "context_s": plan.context_s}))
            pieces += [_Piece(clip, *cut) for cut in cuts]
        scales = [self._model.scale(wave.samples) for wave in waveforms]
        done, all_frames = 0, sum(s.total for s in sums)
        for batch in self._batches(pieces):
            waves = [scales[p.clip](waveforms[p.clip].samples[p.first * HOP_SAMPLES :][: p.n_samples]) for p in batch]
            arrays = self._forward(waves, [sums[p.clip].notes for p in batch])
            for piece, answer in zip(batch, arrays, strict=True):
                sums[piece.clip].add(piece, answer)
                done += piece.stop - piece.start
            yield done / all_frames
        return [s.output() for s in sums]

    def _batches(self, pieces: list[_Piece]) -> list[list[_Piece]]:
        """Pieces of like length together, longest first, as many as the device gains from."""
        batches: list[list[_Piece]] = []
        for piece in sorted(pieces, key=lambda p: -p.n_samples):
            batch = batches[-1] if batches else []
            limit = min(self._max_batch, self._active().batch_limit(batch[0].n_samples)) if batch else 0
            if len(batch) < limit and piece.n_samples >= (1 - MAX_PAD) * batch[0].n_samples:
                batch.append(piece)
            else:
                batches.append([piece])
        return batches

    def _active(self) -> FrameModel:
        if self._fallback is not None and time.monotonic() < self._cpu_until:
            return self._fallback
        return self._model

    def _forward(self, waves: list[Floats], notes: list[list[Note]]) -> list[FrameArrays]:
        """One batch; when memory runs out: halves, single clips, then the CPU. Each step is logged and noted."""
        try:
            return self._active().forward(waves)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            self.oom_steps += 1
            if len(waves) > 1:
                half = len(waves) // 2
                self._say(notes, f"batch of {len(waves)} halved", f"{len(waves)} 段一批减半")
            elif self._active() is self._model and self._make_fallback is not None:
                self._fallback = self._fallback or self._make_fallback()
                self._cpu_until = time.monotonic() + GPU_AGAIN_S
                self._say(notes, "went on with the CPU", "改用 CPU 继续")
                return self._forward(waves, notes)
            else:
                raise ModelError("OUT_OF_MEMORY") from error
        return self._forward(waves[:half], notes[:half]) + self._forward(waves[half:], notes[half:])

    def _say(self, notes: list[list[Note]], en: str, zh: str) -> None:
        log.warning("out of memory on %s: %s", self._model.info.device, en)
        for of_clip in notes:
            note = Note("oom", {"step": en, "step_zh": zh})
            if note not in of_clip:
                of_clip.append(note)


def _out_of_memory(error: Exception) -> bool:
    """torch raises OutOfMemoryError on CUDA and a plain RuntimeError ("can't allocate memory") on the CPU."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
