"""Make a speaker's baseline out of clips, and the numbers of the rule for a model that has none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emotion_app.analyzer import Analyzer, Options, Source
from emotion_app.baseline import Baseline, checked_name, is_unknown, pooled
from emotion_app.baseline_fit import fit
from emotion_app.errors import EmotionError, RequestError
from emotion_app.hearing import hear_all
from emotion_app.labels import EMOTIONS, INDEX
from emotion_app.manifest import Manifest
from emotion_app.timeline import softmax
from emotion_app.types import BaselineRule, ModelInfo, Prediction, Waveform

SILENT = ("silent", "too_short")  # notes of clips that say nothing about a voice


@dataclass(frozen=True, eq=False)
class Said:
    """What became of one enrolment clip.

    Attributes:
        name: of the clip.
        used: whether it is in the baseline.
        prediction: its plain answer, when there is one.
        why: ``unknown`` (no speech), ``silent``, ``too_short``, or the code of its error; empty when used.
        error: the error, if any.
    """

    name: str
    used: bool
    prediction: Prediction | None = None
    why: str = ""
    error: EmotionError | None = None


@dataclass(frozen=True, eq=False)
class Enrolment:
    """A new baseline (not saved yet) with what became of each clip, and how many clips the rule wants at least."""

    baseline: Baseline
    clips: tuple[Said, ...]
    min_clips: int

    @property
    def ready(self) -> bool:
        """Whether it will be applied; with fewer clips the plain scores stay."""
        return self.baseline.count >= self.min_clips


def enrol(
    analyzer: Analyzer,
    sources: Sequence[Source],
    name: str,
    *,
    names: Sequence[str] | None = None,
    neutral_share: float | None = None,
    model: str | None = None,
    start: Baseline | None = None,
    enough: int | None = None,
    isolated: bool = False,
    max_s: float | None = None,
    deadline_s: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Enrolment:
    """Analyze clips of one speaker, oldest first, and gather them in a baseline.

    Clips without speech, under 1 s, silent or unreadable are left out and told in ``clips``.

    Args:
        analyzer: whose models, queue and limits are used.
        sources: what ``Analyzer.analyze`` takes.
        name: of the baseline.
        names: display names of the clips.
        neutral_share: part of neutral clips to assume; default: the rule's for ordinary sentences said on request.
        model: as in ``Options.model``.
        start: a baseline to go on from (the page adds sentence by sentence); its share is kept.
        enough: stop when so many clips are in the baseline.
        isolated: decode in worker processes (uploads).
        max_s: longest clip accepted; default ``limits.batch_clip_s``.
        deadline_s: seconds that a clip may wait for its turn; default: as long as it takes.
        progress: called with (done, all) after each clip.

    Raises:
        RequestError: BAD_NAME, BASELINE_NO_RULE, BASELINE_OTHER_MODEL, and BASELINE_EMPTY when no clip is left
            (its fact ``why`` is the last clip's, the cause its error).
        ModelError, BusyError: of the analysis.
    """
    checked_name(name)
    baseline, min_clips, said = start, 0, []
    for number, source in enumerate(sources, start=1):
        if progress is not None:
            progress(number - 1, len(sources))
        if enough is not None and baseline is not None and baseline.count >= enough:
            break
        title = names[number - 1] if names else _title(source, number)
        try:
            heard = analyzer.hear(
                source, Options(model=model), name=title, isolated=isolated, max_s=max_s, deadline_s=deadline_s
            )
        except EmotionError as error:
            if error.problem.http >= 500 or error.code.startswith("MODEL"):
                raise  # not this clip's fault
            said.append(Said(title, False, why=error.code, error=error))
            continue
        rule = analyzer.need_rule(heard.loaded)
        info: ModelInfo = heard.loaded.engine.info
        if baseline is None:
            share = rule.enrolment_share if neutral_share is None else neutral_share
            baseline = Baseline.empty(name, info, rule, share)
        baseline.check(info)
        min_clips = rule.min_clips
        plain, _ = pooled(heard.output)
        quality = next((note.code for note in heard.waveform.notes if note.code in SILENT), "")
        why = quality or ("unknown" if is_unknown(plain) else "")
        baseline = baseline if why else baseline.add(heard.output)
        said.append(Said(title, not why, Prediction(softmax(plain)), why))
    if progress is not None:
        progress(len(sources), len(sources))
    if baseline is None or baseline.count == 0:
        last = said[-1] if said else None  # the page has one clip at a time and says why
        raise RequestError(
            "BASELINE_EMPTY", given=len(sources), why=last.why if last else ""
        ) from (last.error if last else None)
    return Enrolment(baseline, tuple(said), min_clips)


def _title(source: Source, number: int) -> str:
    if isinstance(source, str | Path):
        return Path(source).name
    return source.name if isinstance(source, Waveform) else f"clip {number}"


def fit_rule(
    analyzer: Analyzer,
    manifest: Manifest,
    *,
    model: str | None = None,
    split: str | None = "train",
    jobs: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[BaselineRule, ModelInfo, tuple[str, ...]]:
    """Estimate the rule of a model from labelled speech; ``baseline_files.save_rule`` keeps it.

    Args:
        analyzer: whose models, queue and limits are used.
        manifest: labelled, with speakers.
        model: as in ``Options.model``.
        split: clips of this split alone, when the list has it; None for all.
        jobs: clips in work at once.
        progress: called with (done, all) after each clip.

    Returns:
        The rule, the model, and a line for each clip that could not be analyzed.

    Raises:
        RequestError: BAD_MANIFEST when labels or speakers are missing.
    """
    usable = [i for i in manifest.items if i.emotion is not None and i.emotion != INDEX["unknown"] and i.speaker]
    if split is not None and any(item.split for item in usable):
        usable = [item for item in usable if item.split == split]
    if not usable:
        reason = f"no clip with a speaker, an emotion ({', '.join(e.key for e in EMOTIONS)}) and the split {split}"
        raise RequestError("BAD_MANIFEST", name=manifest.path.name, reason=reason)
    heards = hear_all(analyzer, usable, model, jobs=jobs, progress=progress)
    if heards.model is None:
        raise heards.failures[0][1]
    speech = ~np.array([is_unknown(row) for row in heards.plain], bool)  # such clips never meet the rule
    kept = [item for item, is_speech in zip(heards.items, speech, strict=True) if is_speech]
    emotions = np.array([-1 if item.emotion is None else item.emotion for item in kept])
    source = f"{manifest.path.name}, {len(kept)} clips"
    rule = fit(heards.reference[speech], emotions, [item.speaker or "" for item in kept], source)
    return rule, heards.model, tuple(f"{item.name}: {error}" for item, error in heards.failures)
