"""``analyze(source, options) -> Result``: the one road that page, REST, command line, stream and cluster all take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from emotion_app import audio, timeline
from emotion_app.baseline import Baseline, adjusted
from emotion_app.baseline_files import BaselineStore, read_rule
from emotion_app.batcher import Answer, Batcher, Load
from emotion_app.cache import FrameCache, cache_key
from emotion_app.errors import BusyError, RequestError
from emotion_app.models import rule_of
from emotion_app.notes import Note
from emotion_app.pool import Loaded, ModelPool, ModelStatus
from emotion_app.settings import Settings
from emotion_app.types import (
    SAMPLE_RATE,
    Adjusted,
    BaselineRule,
    Embedding,
    FrameOutput,
    Granularity,
    ModelInfo,
    Prediction,
    Result,
    Timing,
    Waveform,
)
from emotion_app.vad import shared_network

Source = audio.Source | Waveform
Step = Literal["decode", "load", "download", "queue", "infer"]
WARM_S = 3  # a live window
WAIT_S = 0.25  # how often a waiting caller looks at cancellation and at the health of the model thread


@dataclass(frozen=True)
class Options:
    """What to compute.

    Attributes:
        granularity: ``utterance`` or ``frame`` (adds frames, timeline and segments).
        embedding: ``none``, ``utterance`` (D,) or ``frame`` (adds (T, D)).
        model: as in ``Settings.model``; None for the setting.
        precision: as in ``Settings.precision``; None for the setting.
        window_s: smoothing of the timeline; None for the setting.
        baseline: of the speaker, by name or itself: adds ``Result.adjusted``; None for the plain scores alone.
    """

    granularity: Granularity = "utterance"
    embedding: Embedding = "none"
    model: str | None = None
    precision: str | None = None
    window_s: float | None = None
    baseline: str | Baseline | None = None

    def __post_init__(self) -> None:
        _check("granularity", self.granularity, get_args(Granularity))
        _check("embedding", self.embedding, get_args(Embedding))
        if self.precision is not None:
            _check("precision", self.precision, ("auto", "fp32", "bf16", "fp16", "int8"))
        if self.window_s is not None and not 0 < self.window_s <= 30:
            raise RequestError("BAD_OPTION", option="window_s", value=self.window_s, choices="0.02 - 30")


@dataclass(frozen=True)
class Progress:
    """A step of an analysis that began (fraction 0), goes on, or ended (fraction 1, with its seconds)."""

    step: Step
    fraction: float
    seconds: float = 0.0
    detail: str = ""


@dataclass(frozen=True, eq=False)
class Heard:
    """A clip after the model: what ``assemble`` makes a Result of."""

    waveform: Waveform
    output: FrameOutput
    loaded: Loaded
    timing: Timing


class Analyzer:
    """Holds what outlives one clip: models, queue, decoder processes, cache. Thread-safe.

    Args:
        settings: how to run.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.pool = ModelPool(settings)
        self.batcher = Batcher(settings.limits)
        self.cache = FrameCache(settings.limits.cache_mb)
        self.baselines = BaselineStore(settings.baselines_dir)
        self._decoder = audio.Decoder(settings.limits)

    def analyze(
        self,
        source: Source,
        options: Options | None = None,
        *,
        name: str | None = None,
        max_s: float | None = None,
        isolated: bool = False,
        deadline_s: float | None = None,
        progress: Callable[[Progress], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> Result:
        """Analyze one clip.

        Args:
            source: path, bytes, file object, array, (rate, array) or Waveform.
            options: what to compute.
            name: display name, when the source has none of its own.
            max_s: longest clip accepted; default ``limits.batch_clip_s``.
            isolated: decode in a worker process (for files from strangers; the source must be a path).
            deadline_s: seconds that the clip may wait for its turn; default: as long as it takes.
            progress: called at each step, from this thread or the model thread.
            cancel: set it to stop.

        Raises:
            AudioError, ModelError, BusyError, RequestError: see ``errors.PROBLEMS``.
        """
        options = options or Options()
        if isinstance(options.baseline, str):  # opened once, before any work
            options = replace(options, baseline=self.baselines.open(options.baseline))
        heard = self.hear(
            source, options, name=name, max_s=max_s, isolated=isolated, deadline_s=deadline_s, progress=progress,
            cancel=cancel,
        )  # fmt: skip
        return self.assemble(heard.waveform, heard.output, options, heard.loaded, heard.timing)

    def hear(
        self,
        source: Source,
        options: Options | None = None,
        *,
        name: str | None = None,
        max_s: float | None = None,
        isolated: bool = False,
        deadline_s: float | None = None,
        progress: Callable[[Progress], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> Heard:
        """Frames of one clip: ``analyze`` without its last step, for baselines and evaluations. Arguments as there."""
        options = options or Options()
        tell = progress or _say_nothing
        began = time.monotonic()
        tell(Progress("decode", 0.0))
        waveform = self._decode(source, name, max_s, isolated)
        decode_s = time.monotonic() - began
        tell(Progress("decode", 1.0, decode_s, describe(waveform)))

        loaded = self.pool.get(
            options.model, options.precision, lambda part, what: tell(Progress(_load_step(what), part))
        )
        if loaded.load_s:
            tell(Progress("load", 1.0, loaded.load_s, loaded.engine.info.name))
        self._baseline(options, loaded)  # what does not fit is said before the work
        answer = self._infer(waveform, loaded, options.embedding == "frame", deadline_s, tell, cancel)
        tell(Progress("infer", 1.0, answer.infer_s, str(answer.output.n_frames)))
        timing = Timing(decode_s, loaded.load_s, answer.queue_s, answer.infer_s, answer.batch_size)
        return Heard(waveform, answer.output, loaded, timing)

    def assemble(
        self, waveform: Waveform, output: FrameOutput, options: Options, loaded: Loaded, timing: Timing
    ) -> Result:
        """Result of frames that are already there (the live stream's final answer takes this road too)."""
        window_s = options.window_s or self.settings.window_s
        prediction, frames, smooth, segments = timeline.build(output, waveform.duration_s, window_s)
        info: ModelInfo = loaded.engine.info
        by_frame = options.granularity == "frame"
        judged, about_baseline = self._adjust(waveform, output, options, loaded, window_s)
        shown = prediction if judged is None else judged.prediction
        return Result(
            prediction=prediction,
            granularity=options.granularity,
            waveform=waveform,
            model=info,
            timing=timing,
            created=datetime.now().astimezone(),
            frames=frames if by_frame else None,
            timeline=smooth if by_frame else None,
            segments=tuple(segments) if by_frame else (),
            embedding=output.mean_feature if options.embedding != "none" else None,
            frame_embeddings=output.features if options.embedding == "frame" else None,
            notes=(*waveform.notes, *output.notes, *_about_answer(shown), *about_baseline, *loaded.notes),
            adjusted=judged,
        )

    def rule(self, loaded: Loaded) -> BaselineRule | None:
        """The numbers for baselines with this model: its own, or those fitted for its weights; None without either."""
        return rule_of(loaded.engine.model) or read_rule(loaded.engine.info, self.settings.models_dir)

    def need_rule(self, loaded: Loaded) -> BaselineRule:
        """The same.

        Raises:
            RequestError: BASELINE_NO_RULE.
        """
        rule = self.rule(loaded)
        if rule is None:
            raise RequestError("BASELINE_NO_RULE", model=loaded.engine.info.name)
        return rule

    def _baseline(self, options: Options, loaded: Loaded) -> tuple[Baseline, BaselineRule] | None:
        """The baseline that was asked for, if it fits to the model, with the model's rule."""
        if options.baseline is None:
            return None
        wanted = options.baseline
        baseline = self.baselines.open(wanted) if isinstance(wanted, str) else wanted
        baseline.check(loaded.engine.info)
        return baseline, self.need_rule(loaded)

    def _adjust(
        self, waveform: Waveform, output: FrameOutput, options: Options, loaded: Loaded, window_s: float
    ) -> tuple[Adjusted | None, tuple[Note, ...]]:
        """The answer by the baseline with the note that says so; too small a baseline gives its note alone."""
        found = self._baseline(options, loaded)
        if found is None:
            return None, ()
        baseline, rule = found
        facts: dict[str, float | int | str] = {"name": baseline.name, "count": baseline.count}
        if baseline.count < rule.min_clips:
            return None, (Note("baseline_short", {**facts, "min_clips": rule.min_clips}),)
        built = timeline.build(adjusted(output, baseline, rule), waveform.duration_s, window_s)
        note = Note("baseline_used", {**facts, "share": baseline.neutral_share})
        if options.granularity != "frame":
            return Adjusted(built.prediction, baseline.name, baseline.count, baseline.neutral_share), (note,)
        return Adjusted(
            built.prediction, baseline.name, baseline.count, baseline.neutral_share, built.frames, built.timeline,
            built.segments,
        ), (note,)  # fmt: skip

    def status(self, model: str | None = None) -> ModelStatus:
        """State of a model choice."""
        return self.pool.status(model)

    def preload(self) -> ModelInfo:
        """Load the configured model and the speech detector, and compute one window, so that no kernel is new later."""
        engine = self.pool.get().engine
        shared_network()
        silence = Waveform(np.zeros(WARM_S * SAMPLE_RATE, np.float32))
        for one in dict.fromkeys((engine, engine.interim)):
            self.batcher.submit(one, silence, deadline_s=self.settings.limits.deadline_s).result()
        return engine.info

    def load(self) -> Load:
        """State of the queue."""
        return self.batcher.load()

    def close(self) -> None:
        """End the model thread and the decoder processes; waiting requests get SHUTTING_DOWN."""
        self.batcher.close()
        self._decoder.close()

    def _decode(self, source: Source, name: str | None, max_s: float | None, isolated: bool) -> Waveform:
        if isinstance(source, Waveform):
            return source
        if isolated and isinstance(source, str | Path):
            return self._decoder.load(Path(source), name=name, max_s=max_s)
        return audio.load(source, limits=self.settings.limits, name=name, max_s=max_s)

    def _infer(
        self,
        waveform: Waveform,
        loaded: Loaded,
        features: bool,
        deadline_s: float | None,
        tell: Callable[[Progress], None],
        cancel: threading.Event | None,
    ) -> Answer:
        key = cache_key(waveform.samples, loaded.engine.info)
        found = self.cache.get(key, features=features)
        if found is not None:
            return Answer(found, 0.0, 0.0, 1)
        tell(Progress("queue", 0.0))
        future = self.batcher.submit(
            loaded.engine,
            waveform,
            deadline_s=deadline_s if deadline_s is not None else float("inf"),
            features=features,
            progress=lambda part: tell(Progress("infer", part)),
            cancel=cancel,
        )
        answer = self._wait(future, cancel)
        if not any(note.code == "oom" for note in answer.output.notes):
            self.cache.put(key, answer.output)
        return answer

    def _wait(self, future: Future[Answer], cancel: threading.Event | None) -> Answer:
        while True:
            try:
                return future.result(WAIT_S)
            except FutureTimeout:
                self.batcher.check()
                if cancel is not None and cancel.is_set():
                    future.cancel()
                    raise BusyError("CANCELLED") from None


def analyze(
    source: Source,
    granularity: Granularity = "utterance",
    *,
    embedding: Embedding | bool = False,
    model: str | None = None,
    precision: str | None = None,
    window_s: float | None = None,
    baseline: str | Baseline | None = None,
    settings: Settings | None = None,
) -> Result:
    """Emotion of one clip: the library's front door. For many clips keep one ``Analyzer``.

    Args:
        source: path, bytes, file object, (n,) array at 16 kHz, or (rate, array).
        granularity: ``utterance`` or ``frame``.
        embedding: True or ``"utterance"`` for the (D,) mean feature, ``"frame"`` for (T, D) too.
        model: ``auto``, ``lite``, a known name, a directory or a hub id.
        precision: ``auto``, ``fp32``, ``bf16``, ``fp16``.
        window_s: smoothing of the timeline in seconds.
        baseline: of the speaker, by its name or itself: ``result.adjusted`` is then shown, ``result.prediction``
            stays the plain answer.
        settings: everything else.

    Raises:
        EmotionError: with a code and a text in zh and en.

    >>> import numpy as np
    >>> result = analyze((16_000, np.zeros(32_000, np.float32)), model="lite")
    >>> [note.code for note in result.notes if note.code == "silent"]
    ['silent']
    """
    options = Options(granularity, _embedding(embedding), model, precision, window_s, baseline)
    analyzer = Analyzer(settings or Settings())
    try:
        return analyzer.analyze(source, options)
    finally:
        analyzer.close()


def describe(waveform: Waveform) -> str:
    """One line about the source, e.g. ``mov/aac 44100 Hz 2 ch, 11.4 s``."""
    o = waveform.origin
    return f"{o.container}/{o.codec} {o.sample_rate} Hz {o.channels} ch, {waveform.duration_s:.2f} s"


def _embedding(wanted: Embedding | bool) -> Embedding:
    if isinstance(wanted, bool):
        return "utterance" if wanted else "none"
    return wanted


def _about_answer(prediction: Prediction) -> tuple[Note, ...]:
    if not prediction.mixed:
        return ()
    (first, _), (second, _) = prediction.top(2)
    return (Note("low_margin", {"first": first.en, "second": second.en, "first_zh": first.zh, "second_zh": second.zh}),)


def _load_step(what: str) -> Step:
    return "download" if what == "download" else "load"


def _say_nothing(progress: Progress) -> None:
    pass


def _check(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise RequestError("BAD_OPTION", option=option, value=value, choices=", ".join(choices))
