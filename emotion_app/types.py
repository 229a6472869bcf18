"""The words of the program: sound, frames, scores, and their invariants.

Everything behind ``audio.load`` is 16 kHz mono float32 and finite; everything behind a model is frame features and
frame logits at 50 Hz in the order of ``labels.EMOTIONS``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emotion_app.labels import EMOTIONS, INDEX, N_EMOTIONS, Emotion
from emotion_app.notes import Note

SAMPLE_RATE = 16_000  # Hz, of every Waveform
FRAME_RATE = 50  # frames a second of every model
HOP_SAMPLES = SAMPLE_RATE // FRAME_RATE  # 320 samples, the stride of emotion2vec's conv stack
HOP_S = 1 / FRAME_RATE  # 20 ms
MIN_SAMPLES = 400  # receptive field of one frame: fewer samples give no frame at all
SHORT_S = 1.0  # below: the answer is unreliable (note too_short)
LONG_S = 30.0  # above: not one utterance any more (note long)
MIXED_MARGIN = 0.15  # top two scores closer than this: the answer is called mixed
_TIE = 1e-5  # relative distance from a tie: survives float32 and the digits of result.json
EXCLUDED_LOGIT = -1e9  # logit of a class that a checkpoint leaves out: its softmax is exactly 0, sums stay finite

Granularity = Literal["utterance", "frame"]
Embedding = Literal["none", "utterance", "frame"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
Floats = NDArray[np.float32]


def n_frames(n_samples: int) -> int:
    """Number of frames that the conv front end gives for ``n_samples`` at 16 kHz.

    Kernel/stride pairs (10,5), 4 x (3,2), 2 x (2,2): the same as ``(n - 400) // 320 + 1``.

    >>> n_frames(16_000), n_frames(400), n_frames(399)
    (49, 1, 0)
    """
    return max(0, (n_samples - MIN_SAMPLES) // HOP_SAMPLES + 1)


@dataclass(frozen=True)
class Origin:
    """What the file said about itself before it became a Waveform (for the log and the result)."""

    container: str = "array"
    codec: str = "pcm"
    sample_rate: int = SAMPLE_RATE
    channels: int = 1
    n_bytes: int | None = None


@dataclass(frozen=True, eq=False)
class Waveform:
    """Sound as every model takes it.

    Attributes:
        samples: (n,) float32, 16 kHz, mono, finite.
        name: display name of the source; never used as a path.
        notes: quality notes found on the way.
        origin: what the source was.
    """

    samples: Floats
    name: str = "audio"
    notes: tuple[Note, ...] = ()
    origin: Origin = field(default_factory=Origin)

    def __post_init__(self) -> None:
        if self.samples.dtype != np.float32 or self.samples.ndim != 1:
            raise ValueError(f"Waveform wants (n,) float32, got {self.samples.shape} {self.samples.dtype}")

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True, eq=False)
class FrameOutput:
    """What a model says about a clip: 50 frames a second.

    ``softmax(logits.mean(0))`` is the utterance score: the head is linear, so the mean of frame logits equals the
    logits of the mean feature (FunASR ``models/emotion2vec/model.py`` pools first and projects after).

    Attributes:
        logits: (T, 9) float32 in the order of ``labels.EMOTIONS``; a class left out has EXCLUDED_LOGIT.
        mean_feature: (D,) float32, mean over all frames: the utterance embedding.
        features: (T, D) float32, or None when the caller did not ask for them (an hour is 737 MB at D = 1024).
        reference_logits: (T, 9) float32 of a head made for speaker baselines, or None: then ``logits`` serve.
        notes: what the engine had to do (windows, precision, memory).
    """

    logits: Floats
    mean_feature: Floats
    features: Floats | None = None
    reference_logits: Floats | None = None
    notes: tuple[Note, ...] = ()

    def __post_init__(self) -> None:
        if self.logits.ndim != 2 or self.logits.shape[1] != N_EMOTIONS or not len(self.logits):
            raise ValueError(f"logits want (T >= 1, {N_EMOTIONS}), got {self.logits.shape}")

    @property
    def n_frames(self) -> int:
        """T."""
        return len(self.logits)


@dataclass(frozen=True, eq=False)
class Prediction:
    """Nine scores that sum to 1: uncalibrated softmax, in the order of ``labels.EMOTIONS``.

    >>> p = Prediction(np.array([0, 0, 0, .6, .1, 0, 0, .3, 0]))
    >>> p.label, round(p.confidence, 2), [e.key for e, _ in p.top(2)], p.mixed
    ('happy', 0.6, ['happy', 'surprised'], False)
    """

    scores: NDArray[np.float64]  # (9,)

    def __post_init__(self) -> None:
        if self.scores.shape != (N_EMOTIONS,) or abs(float(self.scores.sum()) - 1) > 1e-6:
            raise ValueError(f"scores want ({N_EMOTIONS},) summing to 1, got {self.scores}")

    @property
    def emotion(self) -> Emotion:
        """The class with the highest score."""
        return EMOTIONS[int(np.argmax(self.scores))]

    @property
    def label(self) -> str:
        """Key of that class."""
        return self.emotion.key

    @property
    def confidence(self) -> float:
        """Its score."""
        return float(self.scores.max())

    @property
    def mixed(self) -> bool:
        """True when the runner-up is within MIXED_MARGIN."""
        first, second = np.sort(self.scores)[::-1][:2]
        return bool(first - second < MIXED_MARGIN)

    def top(self, k: int) -> list[tuple[Emotion, float]]:
        """The ``k`` best classes with their scores, best first."""
        order = np.argsort(-self.scores, kind="stable")[:k]
        return [(EMOTIONS[i], float(self.scores[i])) for i in order]

    def as_dict(self) -> dict[str, float]:
        """Scores by key, in the model's order."""
        return {e.key: float(s) for e, s in zip(EMOTIONS, self.scores, strict=True)}


@dataclass(frozen=True, eq=False)
class Timeline:
    """Scores over time.

    Attributes:
        scores: (T, 9), each row sums to 1.
        start_s: time where the first row begins.
        hop_s: time between rows; row ``t`` stands for ``[start_s + t * hop_s, start_s + (t + 1) * hop_s)``.
        window_s: width of the centred moving mean of the logits; 0 for raw frames.
    """

    scores: Floats
    start_s: float = 0.0
    hop_s: float = HOP_S
    window_s: float = 0.0

    @property
    def end_s(self) -> float:
        """Time where the last row ends."""
        return self.start_s + len(self.scores) * self.hop_s

    @property
    def labels(self) -> list[str]:
        """Key of the best class of each row."""
        return [EMOTIONS[i].key for i in np.argmax(self.scores, axis=1)]


@dataclass(frozen=True, eq=False)
class Segment:
    """A stretch with one emotion; its scores are pooled over all its frames."""

    start_s: float
    end_s: float
    prediction: Prediction
    speaker: str | None = None


@dataclass(frozen=True)
class ModelInfo:
    """Which model answered, for the result, the page and ``doctor``.

    Attributes:
        name: short name, e.g. ``emotion2vec_plus_large`` or ``lite``.
        family: ``emotion2vec`` or ``lite``.
        source: hub id, directory name or ``embedded``.
        engine: ``torch``, ``funasr`` or ``onnx``.
        precision: what the network computes in.
        device: ``cpu`` or ``cuda:0``.
        dim: D, width of the embedding.
        revision: hub revision or package version, when known.
        sha256: hash of the weights file, when known.
        licence: licence of the weights.
        labels: keys of the classes that the checkpoint can answer.
    """

    name: str
    family: str
    source: str
    engine: str
    precision: str
    device: str
    dim: int
    revision: str | None = None
    sha256: str | None = None
    licence: str | None = None
    labels: tuple[str, ...] = tuple(e.key for e in EMOTIONS)

    @property
    def embedded(self) -> bool:
        """True for the small model that is part of the package."""
        return self.family == "lite"


@dataclass(frozen=True, eq=False)
class BaselineRule:
    """How a clip is judged against earlier clips of the same speaker and microphone; the numbers belong to a model.

    ``out = L - w (R - share * d) - (1 - w) g + b`` with ``w = n / (n + n0)``: L are the clip's pooled reference
    logits, R their mean over the n <= cap newest earlier clips, ``share`` the part of neutral clips that those are
    taken to have. ``unknown`` stays with the plain head: whether something is speech does not depend on the speaker.

    Attributes:
        g: (9,) mean reference logits of the training speakers.
        d: (9,) neutral minus the class-balanced mean, of the training speakers.
        b: (9,) bias of the reference head.
        n0: clips that the training mean counts for.
        cap: n never counts for more.
        min_clips: below this the plain scores are shown.
        enrolment_share: ``share`` for ordinary sentences said on request.
        mixed_share: ``share`` when nothing is known of the earlier clips.
        source: where the numbers come from, e.g. ``lite 1.0`` or the manifest they were fitted on.
    """

    g: Floats
    d: Floats
    b: Floats
    n0: float = 5.0
    cap: int = 10
    min_clips: int = 3
    enrolment_share: float = 0.85
    mixed_share: float = 0.4
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("g", "d", "b"):
            if getattr(self, name).shape != (N_EMOTIONS,):
                raise ValueError(f"{name} wants ({N_EMOTIONS},), got {getattr(self, name).shape}")

    def shift(self, earlier: Floats, count: int, share: float) -> NDArray[np.float64]:
        """(9,) what is added to the reference logits of every frame of a clip; arguments as in ``scores``."""
        n = min(count, self.cap)
        weight = n / (n + self.n0)
        return (-weight * (np.asarray(earlier, np.float64) - share * self.d) - (1 - weight) * self.g + self.b).astype(
            np.float64
        )

    def scores(
        self, plain: Floats, reference: Floats, earlier: Floats, count: int, share: float
    ) -> NDArray[np.float64]:
        """(9,) scores that sum to 1: the plain head says first how sure ``unknown`` is, the rule shares out the rest.

        The label is ``unknown`` exactly when the plain head's is: where the two heads are not equally sure,
        ``unknown`` is moved by as little as that needs.

        Args:
            plain: (9,) mean frame logits of the clip.
            reference: (9,) mean frame reference logits of the clip.
            earlier: (9,) mean of the same over the earlier clips.
            count: how many earlier clips there are.
            share: assumed share of neutral among them, 0 (as many of each emotion) to 1.
        """
        unknown, known = INDEX["unknown"], np.arange(N_EMOTIONS) != INDEX["unknown"]
        before = _softmax(np.asarray(plain, np.float64))
        out = np.where(
            np.asarray(plain) < EXCLUDED_LOGIT / 2, EXCLUDED_LOGIT, reference + self.shift(earlier, count, share)
        )
        scores = np.zeros(N_EMOTIONS)
        scores[known] = _softmax(out[known])
        tie = scores.max() / (1 + scores.max())  # share of unknown at which it is as likely as the best emotion
        first = int(np.argmax(before)) == unknown
        share_unknown = max(before[unknown], tie * (1 + _TIE)) if first else min(before[unknown], tie * (1 - _TIE))
        scores[known] *= 1 - share_unknown
        scores[unknown] = share_unknown
        return scores / scores.sum()


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    e = np.exp(logits - logits.max())
    return e / e.sum()


@dataclass(frozen=True)
class Timing:
    """Seconds spent in each step, on a monotonic clock; ``queue_s`` is waiting for the model thread."""

    decode_s: float = 0.0
    load_s: float = 0.0
    queue_s: float = 0.0
    infer_s: float = 0.0
    batch_size: int = 1  # clips that were computed together with this one

    @property
    def total_s(self) -> float:
        """Sum of all steps."""
        return self.decode_s + self.load_s + self.queue_s + self.infer_s


@dataclass(frozen=True, eq=False)
class Adjusted:
    """The same answer judged against a speaker's baseline; the attributes are those of ``Result``, by the same names.

    Attributes:
        prediction: the utterance.
        baseline: name of the baseline.
        count: clips in it.
        neutral_share: share of neutral that those were taken to have.
        frames, timeline, segments: as in ``Result``.
    """

    prediction: Prediction
    baseline: str
    count: int
    neutral_share: float
    frames: Timeline | None = None
    timeline: Timeline | None = None
    segments: tuple[Segment, ...] = ()


@dataclass(frozen=True, eq=False)
class Result:
    """The answer to one clip, whichever door it came through.

    Attributes:
        prediction: the utterance.
        granularity: what was asked for.
        frames: raw per-frame scores, (T, 9) at 50 Hz; None unless granularity is ``frame``.
        timeline: smoothed scores (T, 9) at 50 Hz; None unless granularity is ``frame``.
        segments: merged stretches of the timeline; empty unless granularity is ``frame``.
        embedding: (D,) float32 mean feature, when asked for.
        frame_embeddings: (T, D) float32, when asked for.
        waveform: the sound that was analyzed.
        model: which model answered.
        timing: seconds by step.
        notes: everything that a reader must know, in the order found.
        created: local time with its offset.
        adjusted: the answer by a speaker's baseline, when one was asked for and could be used: then this is shown.
    """

    prediction: Prediction
    granularity: Granularity
    waveform: Waveform
    model: ModelInfo
    timing: Timing
    created: datetime
    frames: Timeline | None = None
    timeline: Timeline | None = None
    segments: tuple[Segment, ...] = ()
    embedding: Floats | None = None
    frame_embeddings: Floats | None = None
    notes: tuple[Note, ...] = ()
    adjusted: Adjusted | None = None

    @property
    def shown(self) -> Literal["plain", "adjusted"]:
        """Which scores are to be shown."""
        return "plain" if self.adjusted is None else "adjusted"

    @property
    def view(self) -> Result | Adjusted:
        """What is to be shown: ``.prediction``, ``.frames``, ``.timeline`` and ``.segments`` of it."""
        return self.adjusted or self
