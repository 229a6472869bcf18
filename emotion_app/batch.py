"""Thousands of clips into one folder: as ``analyze`` gives them one by one, resumable, no bad file stops the others."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from emotion_app.analyzer import Analyzer, Options
from emotion_app.baseline import Baseline
from emotion_app.baseline_files import BaselineStore
from emotion_app.batch_files import ResultLog, collect, content_of
from emotion_app.enrol import enrol
from emotion_app.errors import EmotionError, RequestError
from emotion_app.hearing import each, source_of
from emotion_app.manifest import Item
from emotion_app.pool import Loaded
from emotion_app.result_json import result_to_dict
from emotion_app.types import BaselineRule

PER_FOLDER, PER_SPEAKER = "per-folder", "per-speaker-column"
TRIES = 3  # clips heard for a group's baseline, as a multiple of those that it can hold


@dataclass(frozen=True)
class BatchPlan:
    """What to do with the clips.

    Attributes:
        options: as for ``analyze``, without a baseline.
        baseline: None, a name, ``per-folder`` (the clips of a folder are one speaker and microphone) or
            ``per-speaker-column`` (the lists say who speaks).
        neutral_share: for the groups' baselines; None for the rule's share for an unknown mixture.
        jobs: clips in work at once.
        resume: go on with the results in the folder.
    """

    options: Options = field(default_factory=Options)
    baseline: str | None = None
    neutral_share: float | None = None
    jobs: int = 2
    resume: bool = False


@dataclass(frozen=True)
class Step:
    """How far a batch is: clips done in this run (failed and already known ones too), all, and the last one."""

    done: int
    total: int
    failed: int
    known: int
    name: str = ""
    error: EmotionError | None = None


@dataclass(frozen=True)
class Summary:
    """What a batch did.

    Attributes:
        done: clips with a result now, from this run.
        known: clips that had theirs already.
        failed: name and error of the others.
        passed_over: files in the folders that are no sound or video by their suffix.
        out: the folder.
    """

    done: int
    known: int
    failed: tuple[tuple[str, EmotionError], ...]
    passed_over: int
    out: Path


def run_batch(
    analyzer: Analyzer,
    inputs: Sequence[Path],
    out: Path,
    plan: BatchPlan | None = None,
    *,
    progress: Callable[[Step], None] | None = None,
    cancel: threading.Event | None = None,
) -> Summary:
    """Analyze all clips of files, folders and lists; see ``batch_files`` for what is written.

    Args:
        analyzer: whose models, queue and limits are used.
        inputs: files, folders, lists.
        out: folder of results.jsonl, results.csv and, by frame, segments.csv.
        plan: options, baselines, jobs.
        progress: called after each clip.
        cancel: set it to stop after the clips in work; what is done is kept.

    Raises:
        RequestError: OUT_IN_USE, NO_INPUT, BAD_MANIFEST, NO_BASELINE, BASELINE_NO_RULE ...
        ModelError: the model cannot be loaded.
        KeyboardInterrupt: after what was done is safe.
    """
    plan = plan or BatchPlan()
    stop = cancel or threading.Event()
    collected = collect(inputs, out)
    groups = _groups(collected.items, plan.baseline)
    loaded = analyzer.pool.get(plan.options.model, plan.options.precision)
    if plan.baseline is not None:
        analyzer.need_rule(loaded)
    if plan.baseline not in (None, PER_FOLDER, PER_SPEAKER):
        analyzer.baselines.open(plan.baseline or "").check(loaded.engine.info)
    log = ResultLog(out, resume=plan.resume)
    run = _Run(analyzer, plan, loaded, log, stop, len(collected.items), progress or (lambda step: None))
    try:
        for group, items in groups.items():
            if stop.is_set():
                break
            run.group(group, items)
    finally:
        log.close([item.name for item in collected.items])
    return Summary(run.done, run.known, tuple(run.failed), collected.passed_over, out)


def _groups(items: Iterable[Item], baseline: str | None) -> dict[str | None, list[Item]]:
    """Clips by speaker or folder, in the order of their first clip; one group without grouping."""
    groups: dict[str | None, list[Item]] = {}
    for item in items:
        key = {PER_FOLDER: str(Path(item.name).parent), PER_SPEAKER: item.speaker}.get(baseline or "")
        groups.setdefault(key, []).append(item)
    if baseline == PER_SPEAKER and set(groups) == {None}:
        raise RequestError("BAD_OPTION", option="--baseline", value=PER_SPEAKER, choices="a list with a speaker column")
    return groups


@dataclass(eq=False)
class _Run:
    """One batch under way. Only the calling thread changes it; ``work`` runs in several."""

    analyzer: Analyzer
    plan: BatchPlan
    loaded: Loaded
    log: ResultLog
    stop: threading.Event
    total: int
    tell: Callable[[Step], None]
    done: int = 0
    known: int = 0
    failed: list[tuple[str, EmotionError]] = field(default_factory=list)

    def group(self, group: str | None, items: list[Item]) -> None:
        """All clips of one speaker, or of everybody."""
        baseline = self._baseline(group, items)
        options = replace(self.plan.options, baseline=baseline)
        mark = fingerprint(options, self.loaded, self.analyzer.rule(self.loaded))

        def work(item: Item) -> dict[str, Any] | None:
            content = content_of(item)
            if self.log.has(item.name, content, mark):
                return None
            row = {"path": item.name, "speaker": item.speaker, "group": group, "content": content, "options": mark}
            if (twin := self.log.twin(content, mark)) is not None:
                return {**twin, **row, "source": {**twin["source"], "name": item.path.name}}
            source = source_of(item, self.analyzer)
            result = self.analyzer.analyze(source, options, name=item.path.name, cancel=self.stop)
            return {**row, **result_to_dict(result)}

        for answer in each(items, work, self.plan.jobs, self.stop):
            self._record(answer.task, group, mark, answer.value, answer.error)

    def _record(
        self, item: Item, group: str | None, mark: str, row: dict[str, Any] | None, error: EmotionError | None
    ) -> None:
        if error is not None and error.code == "CANCELLED":
            return  # not this clip's fault: a resumed run does it
        if error is not None:
            self.failed.append((item.name, error))
            said = {"code": error.code, "en": error.text("en"), "zh": error.text("zh")}
            self.log.add({"path": item.name, "speaker": item.speaker, "group": group, "content": "", "options": mark,
                          "error": said})  # fmt: skip
        elif row is None:
            self.known += 1
        else:
            self.done += 1
            self.log.add(row)
        at = self.done + self.known + len(self.failed)
        self.tell(Step(at, self.total, len(self.failed), self.known, item.name, error))

    def _baseline(self, group: str | None, items: list[Item]) -> Baseline | None:
        """The baseline by name, or the group's: of its own clips, spread evenly, kept in the folder for resuming."""
        wanted = self.plan.baseline
        if wanted is None or (group is None and wanted in (PER_FOLDER, PER_SPEAKER)):
            return None
        if wanted not in (PER_FOLDER, PER_SPEAKER):
            return self.analyzer.baselines.open(wanted)
        rule = self.analyzer.need_rule(self.loaded)
        share = rule.mixed_share if self.plan.neutral_share is None else self.plan.neutral_share
        store, name = BaselineStore(self.log.folder / "baselines"), group_name(group or "")
        if self.plan.resume and name in store.names():
            kept = store.open(name)
            if (kept.model, kept.sha256, kept.neutral_share) == (*_identity(self.loaded), share):
                return kept
        empty = Baseline.empty(name, self.loaded.engine.info, rule, share)
        sources = _readable(self.analyzer, spread(items, rule.cap, TRIES * rule.cap))
        model = self.plan.options.model
        try:
            made = enrol(self.analyzer, sources, name, model=model, start=empty, enough=rule.cap).baseline
        except RequestError as error:
            if error.code != "BASELINE_EMPTY":
                raise
            made = empty  # each of its results says that there are too few clips
        store.save(made, replace=True)
        return made


def spread(items: Sequence[Item], first: int, most: int) -> list[Item]:
    """``first`` clips evenly over the list, then the others, at most ``most``: its start need not be typical."""
    chosen = np.unique(np.linspace(0, len(items) - 1, min(first, len(items))).round().astype(int)).tolist()
    others = sorted(set(range(len(items))) - set(chosen))
    return [items[i] for i in [*chosen, *others][:most]]


def group_name(group: str) -> str:
    """A name for the baseline of a folder or speaker: readable, and never the same for two of them."""
    readable = re.sub(r"[\W_]+", " ", group).strip()[-28:].strip()
    return f"{hashlib.blake2b(group.encode('utf-8', 'replace'), digest_size=4).hexdigest()} {readable}".strip()


def fingerprint(options: Options, loaded: Loaded, rule: BaselineRule | None) -> str:
    """Everything but the sound that a result depends on: a resumed run does again what was done otherwise."""
    info, baseline = loaded.engine.info, options.baseline
    facts: list[Any] = [options.granularity, options.embedding, options.window_s]
    facts += [info.name, info.sha256, info.engine, info.precision]
    if isinstance(baseline, Baseline):
        facts += [baseline.name, baseline.neutral_share, baseline.recent.round(6).tolist()]
        facts += [] if rule is None else [rule.g.tolist(), rule.d.tolist(), rule.b.tolist(), rule.n0]
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=8).hexdigest()


def _identity(loaded: Loaded) -> tuple[str, str | None]:
    return loaded.engine.info.name, loaded.engine.info.sha256


def _readable(analyzer: Analyzer, items: Sequence[Item]) -> list[Any]:
    """Sources for a baseline; a part of a file that is not there is passed over here and reported with its own row."""
    sources = []
    for item in items:
        try:
            sources.append(source_of(item, analyzer))
        except EmotionError:
            continue
    return sources
