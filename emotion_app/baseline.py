"""A speaker's own baseline: what the model says of this voice and microphone when nothing special is felt.

What breaks transfer between speakers is a constant shift of the logits; a few earlier clips of the same speaker show it
and ``types.BaselineRule`` takes it out (figures in docs/baseline.md). Here are the state of a speaker and the frames of
a clip after the rule. A ``Baseline`` is never changed: ``add`` gives a new one.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from emotion_app.errors import RequestError
from emotion_app.labels import INDEX, N_EMOTIONS
from emotion_app.types import EXCLUDED_LOGIT, BaselineRule, Floats, FrameOutput, ModelInfo

NAME_MAX = 40  # characters; four bytes each still fit into a file name
TAKEN_NAMES = ("none", "per-folder", "per-speaker-column")  # have a meaning of their own on the command line
UNKNOWN = INDEX["unknown"]
_NAME = re.compile(r"[^\W_]([\w \-]*\w)?")


@dataclass(frozen=True, eq=False)
class Baseline:
    """The newest clips of one speaker and microphone, as pooled reference logits of one model.

    Attributes:
        name: chosen by its owner; see ``checked_name``.
        recent: (n, 9) pooled reference logits of the newest clips, oldest first, n <= cap.
        neutral_share: part of neutral clips that these are taken to have, 0..1.
        model: name of the model.
        sha256: of the model's weights, when known.
        created: local time with its offset.
        cap: how many clips are kept.
    """

    name: str
    recent: Floats
    neutral_share: float
    model: str
    sha256: str | None
    created: datetime
    cap: int = 10

    def __post_init__(self) -> None:
        if self.recent.ndim != 2 or self.recent.shape[1] != N_EMOTIONS or not np.isfinite(self.recent).all():
            raise ValueError(f"recent wants (n, {N_EMOTIONS}) finite, got {self.recent.shape}")
        if not 0 <= self.neutral_share <= 1:
            raise RequestError("BAD_OPTION", option="neutral_share", value=self.neutral_share, choices="0 - 1")

    @classmethod
    def empty(cls, name: str, model: ModelInfo, rule: BaselineRule, neutral_share: float | None = None) -> Baseline:
        """A baseline without clips.

        Args:
            name: see ``checked_name``.
            model: whose logits will be added.
            rule: of that model.
            neutral_share: default ``rule.mixed_share``; for ordinary sentences said on request
                ``rule.enrolment_share``.
        """
        share = rule.mixed_share if neutral_share is None else neutral_share
        nothing = np.zeros((0, N_EMOTIONS), np.float32)
        return cls(checked_name(name), nothing, share, model.name, model.sha256, datetime.now().astimezone(), rule.cap)

    @property
    def count(self) -> int:
        """Clips in it, at most ``cap``."""
        return len(self.recent)

    @property
    def mean(self) -> Floats:
        """R: (9,) mean reference logits; zeros without clips."""
        return self.recent.mean(axis=0) if len(self.recent) else np.zeros(N_EMOTIONS, np.float32)

    def add(self, output: FrameOutput) -> Baseline:
        """With one more clip, the oldest dropped beyond ``cap``; the same baseline when the clip is ``unknown``."""
        plain, reference = pooled(output)
        if is_unknown(plain):
            return self
        return replace(self, recent=np.concatenate([self.recent, reference[None]])[-self.cap :])

    def check(self, model: ModelInfo) -> None:
        """Make sure that the logits in it are this model's.

        Raises:
            RequestError: BASELINE_OTHER_MODEL.
        """
        if (self.model, self.sha256) != (model.name, model.sha256):
            made_with, now = (f"{n} ({(h or 'no hash')[:8]})" for n, h in ((self.model, self.sha256), _names(model)))
            raise RequestError("BASELINE_OTHER_MODEL", name=self.name, made_with=made_with, model=now)


def checked_name(name: str) -> str:
    """The name in one Unicode form, if it can be one: letters of any script, digits, spaces, ``-`` and ``_``.

    Raises:
        RequestError: BAD_NAME.

    >>> checked_name("小明 USB-1")
    '小明 USB-1'
    """
    clean = unicodedata.normalize("NFC", name)
    if len(clean) > NAME_MAX or not _NAME.fullmatch(clean) or clean.casefold() in TAKEN_NAMES:
        raise RequestError("BAD_NAME", name=name[: NAME_MAX + 1], taken=", ".join(TAKEN_NAMES))
    return clean


def pooled(output: FrameOutput) -> tuple[Floats, Floats]:
    """(9,) mean plain logits and (9,) mean reference logits of a clip; the same twice without a reference head."""
    plain = output.logits.mean(axis=0, dtype=np.float64).astype(np.float32)
    if output.reference_logits is None:
        return plain, plain
    return plain, output.reference_logits.mean(axis=0, dtype=np.float64).astype(np.float32)


def is_unknown(plain: Floats) -> bool:
    """Whether the plain head takes a clip for something else than speech."""
    return int(np.argmax(plain)) == UNKNOWN


def adjusted(output: FrameOutput, baseline: Baseline, rule: BaselineRule) -> FrameOutput:
    """The clip's frames after the rule: ``softmax(mean of its logits)`` are the adjusted scores, and so on for parts.

    One constant vector is added to the reference logits of all frames; ``unknown`` is the plain head's, by its
    distance from the mean of the other classes, shifted so that the whole clip has the share that ``rule.scores``
    gives it. Both are linear, so pooling, timeline and segments work as on plain logits.

    Args:
        output: of the model that the baseline was made with.
        baseline: see ``Baseline.check``.
        rule: of that model.
    """
    plain, reference = pooled(output)
    scores = rule.scores(plain, reference, baseline.mean, baseline.count, baseline.neutral_share)
    usable = plain > EXCLUDED_LOGIT / 2
    known = usable & (np.arange(N_EMOTIONS) != UNKNOWN)
    source = output.logits if output.reference_logits is None else output.reference_logits
    shift = rule.shift(baseline.mean, baseline.count, baseline.neutral_share)
    logits = np.full(output.logits.shape, EXCLUDED_LOGIT)
    emotions = source[:, known] + shift[known]
    logits[:, known] = emotions - emotions.mean(axis=1, keepdims=True)
    if usable[UNKNOWN]:
        apart = output.logits[:, UNKNOWN] - output.logits[:, known].mean(axis=1, dtype=np.float64)
        whole = np.log(np.exp(logits[:, known].mean(axis=0)).sum())
        share = float(np.clip(scores[UNKNOWN], 1e-12, 1 - 1e-12))
        logits[:, UNKNOWN] = apart - apart.mean() + np.log(share / (1 - share)) + whole
    return replace(output, logits=logits.astype(np.float32), reference_logits=None)


def _names(model: ModelInfo) -> tuple[str, str | None]:
    return model.name, model.sha256
