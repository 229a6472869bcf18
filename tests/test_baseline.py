"""The baseline rule against its formula, its state and files, fitting, and its way through the analyzer."""

import json
from dataclasses import FrozenInstanceError, replace
from datetime import datetime, timezone
from pathlib import Path

import jsonschema_rs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotion_app import baseline_files, result_json
from emotion_app.analyzer import Analyzer, Options
from emotion_app.baseline import Baseline, adjusted, checked_name, pooled
from emotion_app.baseline_files import BaselineStore, read_rule, save_rule
from emotion_app.baseline_fit import fit, fit_bias
from emotion_app.engine import Engine
from emotion_app.enrol import enrol, fit_rule
from emotion_app.errors import ModelError, RequestError, StoreError
from emotion_app.labels import INDEX, N_EMOTIONS
from emotion_app.manifest import Item, Manifest
from emotion_app.pool import Loaded
from emotion_app.store import Store
from emotion_app.testing import HUB_TOKENS, write_checkpoint
from emotion_app.timeline import Pooled, build, softmax
from emotion_app.types import EXCLUDED_LOGIT, BaselineRule, FrameOutput, ModelInfo, Waveform
from tests.local_model import LocalModel
from tests.voices import voice

UNKNOWN, NEUTRAL = INDEX["unknown"], INDEX["neutral"]
MODEL = ModelInfo("local", "test", "tests", "torch", "fp32", "cpu", 16, sha256="ab" * 32)
SCHEMA = json.loads((Path(__file__).parents[1] / "docs" / "result.schema.json").read_text("utf-8"))


def rule(seed: int = 0, **changes) -> BaselineRule:
    g, d, b = np.random.default_rng(seed).normal(size=(3, 9)).astype(np.float32)
    return BaselineRule(g, d, b, source="tests", **changes)


def output(seed: int = 0, n: int = 80, *, speech: bool = True, excluded: tuple[int, ...] = ()) -> FrameOutput:
    dice = np.random.default_rng(seed)
    logits, reference = (dice.normal(0, 2, (n, 9)) + dice.normal(0, 2, 9) for _ in range(2))
    logits[:, UNKNOWN] += -8 if speech else 12
    logits[:, excluded] = EXCLUDED_LOGIT
    return FrameOutput(logits.astype(np.float32), np.zeros(4, np.float32), None, reference.astype(np.float32))


def made(count: int, share: float = 0.85, name: str = "me", cap: int = 10) -> Baseline:
    empty = Baseline.empty(name, MODEL, rule(cap=cap), share)
    for seed in range(count):
        empty = empty.add(output(100 + seed))
    return empty


# -- the formula ---------------------------------------------------------------------------------------------------


def test_rule_by_hand() -> None:
    """N = 5, n0 = 5: w = 1/2. out = L - 1/2 (R - 0.8 d) - 1/2 g + b, column by column."""
    nine = np.arange(9, dtype=np.float32)
    r = BaselineRule(g=nine, d=np.full(9, 2, np.float32), b=np.full(9, 0.5, np.float32))
    shift = r.shift(np.full(9, 4, np.float32), count=5, share=0.8)
    np.testing.assert_allclose(shift, -0.5 * (4 - 1.6) - 0.5 * nine + 0.5)
    np.testing.assert_allclose(r.shift(nine, 500, 0.0), r.shift(nine, 10, 0.0))  # never more than cap
    np.testing.assert_allclose(r.shift(nine, 0, 0.85), -nine + 0.5)  # without clips only the training mean


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(0, 30), share=st.floats(0, 1), speech=st.booleans())
def test_unknown_is_decided_first(seed: int, count: int, share: float, speech: bool) -> None:
    plain, reference = pooled(output(seed, speech=speech))
    if seed % 2:
        plain[UNKNOWN] = np.sort(plain[:UNKNOWN])[-1] + (0.05 if speech else -0.05)  # nearly a tie
    r, earlier = rule(seed), np.random.default_rng(seed).normal(size=9).astype(np.float32)
    scores = r.scores(plain, reference, earlier, count, share)
    known = np.arange(9) != UNKNOWN
    out = reference + r.shift(earlier, count, share)
    assert abs(scores.sum() - 1) < 1e-9 and (scores >= 0).all()
    assert (np.argmax(scores) == UNKNOWN) == (np.argmax(plain) == UNKNOWN)
    np.testing.assert_allclose(scores[known] / scores[known].sum(), softmax(out[known]), atol=1e-9)
    assert np.argmax(scores.astype(np.float32).round(7)) == np.argmax(scores)  # also as result.json writes it


def test_a_constant_shift_of_a_speaker_vanishes() -> None:
    """What the rule is for: with n0 = 0 a shift of all clips of a speaker changes nothing."""
    r, shift = rule(n0=0.0), np.random.default_rng(1).normal(0, 3, 9).astype(np.float32)
    plain, reference = pooled(output(7))
    b = made(10)
    here = r.scores(plain, reference, b.mean, 10, 0.85)
    there = r.scores(plain, reference + shift, b.mean + shift, 10, 0.85)
    np.testing.assert_allclose(here, there, atol=1e-5)


@pytest.mark.parametrize("excluded", [(), (UNKNOWN,), (1, 7), (UNKNOWN, 0)])
@pytest.mark.parametrize("speech", [True, False])
def test_adjusted_frames_pool_to_the_rule(excluded: tuple[int, ...], speech: bool) -> None:
    clip, b, r = output(3, 201, speech=speech, excluded=excluded), made(6), rule()
    plain, reference = pooled(clip)
    frames = adjusted(clip, b, r)
    whole = build(frames, 5.0, 1.0)
    want = r.scores(plain, reference, b.mean, b.count, b.neutral_share)
    np.testing.assert_allclose(whole.prediction.scores, want, atol=1e-6)
    np.testing.assert_allclose(softmax(frames.logits.mean(0, dtype=np.float64)), want, atol=1e-6)
    assert (whole.timeline.scores[:, excluded] == 0).all() and (whole.prediction.scores[list(excluded)] == 0).all()
    kept = [c for c in range(9) if c != UNKNOWN and c not in excluded]
    both, shift = Pooled(clip.reference_logits), r.shift(b.mean, b.count, b.neutral_share)
    for first, last in ((0, 1), (0, 50), (37, 150), (200, 201)):  # each part: the rule on that part
        part = Pooled(frames.logits).pool(first, last).scores[kept]
        np.testing.assert_allclose(part / part.sum(), softmax((both.means(first, last) + shift)[kept]), atol=1e-5)


def test_unknown_stretches_stay_unknown() -> None:
    """Noise inside a clip of speech: the timeline still says so, with whatever level the reference head has there."""
    clip = output(5, 300)
    clip.logits[100:200, UNKNOWN] += 22
    clip.reference_logits[100:200] += np.random.default_rng(0).normal(0, 40)
    labels = build(adjusted(clip, made(10), rule()), 6.1, 0.2).timeline.labels
    assert labels[110:190] == ["unknown"] * 80 and "unknown" not in labels[:90] + labels[210:]


def test_models_without_a_reference_head_use_their_plain_logits() -> None:
    clip = replace(output(2), reference_logits=None)
    plain, reference = pooled(clip)
    assert plain is reference
    want = rule().scores(plain, plain, made(5).mean, 5, 0.85)
    np.testing.assert_allclose(build(adjusted(clip, made(5), rule()), 2.0, 1.0).prediction.scores, want, atol=1e-6)


# -- state and files -----------------------------------------------------------------------------------------------


def test_add_keeps_the_newest_and_changes_nothing() -> None:
    empty = Baseline.empty("me", MODEL, rule(), None)
    assert empty.count == 0 and not empty.mean.any() and empty.neutral_share == 0.4
    clips = [output(seed) for seed in range(13)]
    grown = empty
    for clip in clips:
        grown = grown.add(clip)
    assert empty.count == 0 and grown.count == 10
    np.testing.assert_allclose(grown.mean, np.mean([pooled(c)[1] for c in clips[-10:]], axis=0), atol=1e-6)
    assert grown.add(output(99, speech=False)) is grown
    with pytest.raises(FrozenInstanceError):
        grown.name = "you"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "a\\b", "x" * 41, "a\0", "per-folder", "NONE", "-a", "a ", ".hidden", "a\n", "a:b"],
)
def test_bad_names(name: str, tmp_path: Path) -> None:
    store = BaselineStore(tmp_path / "b")
    for act in (checked_name, store.open, store.delete, lambda n: store.save(replace(made(1), name=n))):
        with pytest.raises(RequestError) as caught:
            act(name)
        assert caught.value.code == "BAD_NAME"
    assert not (tmp_path / "b").exists()


def test_store(tmp_path: Path) -> None:
    store = BaselineStore(tmp_path / "b")
    assert store.names() == ()
    first = made(4, name="小明 USB-1")
    store.save(first)
    (tmp_path / "b" / "..x.json").write_text("{}")
    found = store.open("小明 USB-1")
    assert store.names() == ("小明 USB-1",)
    np.testing.assert_array_equal(found.recent, first.recent)
    assert vars(found) | {"recent": 0} == vars(first) | {"recent": 0}
    with pytest.raises(RequestError, match="already"):
        store.save(first)
    store.save(made(7, name="小明 USB-1"), replace=True)
    assert store.open("小明 USB-1").count == 7
    assert [p.name for p in (tmp_path / "b").iterdir() if p.name.startswith(".partial")] == []
    store.delete("小明 USB-1")
    for act in (store.open, store.delete):
        with pytest.raises(RequestError) as caught:
            act("小明 USB-1")
        assert caught.value.code == "NO_BASELINE"


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "null", '{"recent": [[1]]}', json.dumps({"recent": [[float("nan")] * 9]}), "[" * 10_000]
)
def test_broken_files(tmp_path: Path, text: str) -> None:
    store = BaselineStore(tmp_path)
    path = store.save(made(3))
    good = json.loads(path.read_text())
    path.write_text(json.dumps(good | json.loads(text)) if text.startswith('{"') else text)
    with pytest.raises(StoreError) as caught:
        store.open("me")
    assert caught.value.code == "BASELINE_BROKEN"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as caught:
        BaselineStore(tmp_path / "file" / "b").save(made(3))
    assert caught.value.code == "CANNOT_SAVE"


def test_other_model() -> None:
    b = made(3)
    b.check(MODEL)
    for other in (replace(MODEL, name="other"), replace(MODEL, sha256="cd" * 32), replace(MODEL, sha256=None)):
        with pytest.raises(RequestError) as caught:
            b.check(other)
        assert caught.value.code == "BASELINE_OTHER_MODEL"


def test_rules_are_kept_by_weights(tmp_path: Path) -> None:
    r = rule(n0=4.0)
    path = save_rule(r, MODEL, tmp_path)
    found = read_rule(MODEL, tmp_path)
    assert path.is_relative_to(tmp_path) and (found.n0, found.source) == (4.0, "tests")
    np.testing.assert_allclose([found.g, found.d, found.b], [r.g, r.d, r.b])
    assert read_rule(replace(MODEL, sha256="ef" * 32), tmp_path) is None
    path.write_text("{}")
    with pytest.raises(StoreError):
        read_rule(MODEL, tmp_path)
    assert baseline_files.rule_path(tmp_path, replace(MODEL, name="../../x")).is_relative_to(tmp_path)
    assert ".." not in str(baseline_files.rule_path(tmp_path, replace(MODEL, name="../../x")).relative_to(tmp_path))


# -- fitting -------------------------------------------------------------------------------------------------------


def speakers(n: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Clips of made-up speakers: class direction + speaker's shift + noise, as logits of a model would be."""
    dice = np.random.default_rng(seed)
    base = np.eye(9) * 3 + dice.normal(0, 0.3, (9, 9))
    rows, labels, names = [], [], []
    for speaker in range(n):
        shift = dice.normal(0, 2, 9)
        for label in (0, 2, 3, 4, 6):
            for _ in range(6 if label == 4 else 3):
                rows.append(base[label] + shift + dice.normal(0, 0.8, 9))
                labels.append(label)
                names.append(f"s{speaker}")
    return np.array(rows, np.float32), np.array(labels), names


def test_fit_finds_g_and_d() -> None:
    logits, labels, names = speakers()
    r = fit(logits, labels, names, "made up")
    by_class = np.array([[logits[(labels == c) & (np.array(names) == s)].mean(0) for c in np.unique(labels)]
                         for s in np.unique(names)])  # fmt: skip
    np.testing.assert_allclose(r.g, by_class.mean((0, 1)), atol=1e-5)
    np.testing.assert_allclose(r.d, (by_class[:, 3] - by_class.mean(1)).mean(0), atol=1e-5)
    assert r.source == "made up" and (r.n0, r.cap) == (5.0, 10)


def test_fit_bias_is_the_best_one() -> None:
    """The optimum of a convex loss: every step from it is worse; classes that do not occur keep their place."""
    logits, labels, names = speakers(seed=3)
    centred = logits - np.array([logits[np.array(names) == s].mean(0) for s in names])
    g = np.random.default_rng(0).normal(size=9)
    b = fit_bias(centred.astype(float), labels, g)
    present = np.unique(labels)

    def loss(x: np.ndarray) -> float:
        p = softmax(centred[:, present] + x)
        each = -np.log(p[np.arange(len(labels)), np.searchsorted(present, labels)])
        return np.mean([each[labels == c].mean() for c in present]) + 0.5e-3 * np.sum((x - g[present]) ** 2)

    best = loss(b[present])
    for step in np.vstack([np.eye(len(present)), -np.eye(len(present))]) * 0.05:
        assert loss(b[present] + step) > best
    absent = np.setdiff1d(np.arange(9), present)
    np.testing.assert_allclose(b[absent] - g[absent], (b[present] - g[present]).mean(), atol=1e-9)


def test_fitted_rule_helps_new_speakers() -> None:
    r = fit(*speakers(8, seed=0), "train")
    logits, labels, names = speakers(6, seed=0)  # the same classes, but
    dice = np.random.default_rng(9)
    shifts = {name: dice.normal(0, 2.5, 9) for name in names}  # voices never heard
    logits = (logits + np.array([shifts[name] for name in names])).astype(np.float32)
    right = {"plain": 0, "rule": 0}
    for row, name in enumerate(names):
        mine = dice.permutation([i for i, other in enumerate(names) if other == name and i != row])[:10]
        scores = r.scores(logits[row], logits[row], logits[mine].mean(0), len(mine), 0.2)
        right["plain"] += int(np.argmax(logits[row]) == labels[row])
        right["rule"] += int(np.argmax(scores) == labels[row])
    assert right["rule"] > 1.5 * right["plain"]


def test_fit_needs_speakers_and_neutral() -> None:
    logits, labels, names = speakers()
    for keep in (np.array(names) == "s0", labels != NEUTRAL, labels == NEUTRAL):
        with pytest.raises(RequestError) as caught:
            fit(logits[keep], labels[keep], np.array(names)[keep].tolist(), "list")
        assert caught.value.code == "BAD_MANIFEST"


# -- through the analyzer ------------------------------------------------------------------------------------------


class Judged(LocalModel):
    """The exact little model, with a rule and never unknown."""

    def __init__(self) -> None:
        super().__init__()
        self.info = MODEL
        self.baseline_rule = rule()
        self._head[:, UNKNOWN] -= 2

    def forward(self, waves):
        return [a._replace(logits=a.logits - 20 * (np.arange(9) == UNKNOWN)) for a in super().forward(waves)]


@pytest.fixture
def analyzer(settings, monkeypatch):
    made_ = Analyzer(settings)
    loaded = Loaded(Engine(Judged()), (), 0.0)
    monkeypatch.setattr(made_.pool, "get", lambda *args, **kwargs: loaded)
    yield made_
    made_.close()


def waves(n: int, seconds: float = 1.5) -> list[Waveform]:
    return [Waveform(voice(seconds, seed), f"clip {seed}") for seed in range(n)]


@pytest.mark.parametrize("granularity", ["utterance", "frame"])
def test_both_answers_are_in_the_result(analyzer, tmp_path: Path, granularity: str) -> None:
    b = enrol(analyzer, waves(5), "me").baseline
    analyzer.baselines.save(b)
    clip = waves(8, 2.3)[-1]
    plain = analyzer.analyze(clip, Options(granularity))
    both = analyzer.analyze(clip, Options(granularity, baseline="me"))
    assert plain.adjusted is None and plain.shown == "plain" and plain.view is plain
    assert both.shown == "adjusted" and both.view is both.adjusted
    np.testing.assert_array_equal(plain.prediction.scores, both.prediction.scores)
    assert (both.adjusted.baseline, both.adjusted.count, both.adjusted.neutral_share) == ("me", 5, 0.85)
    assert [n.code for n in both.notes if n.code.startswith("baseline")] == ["baseline_used"]
    output_ = analyzer.hear(clip).output
    want = rule().scores(*pooled(output_), b.mean, 5, 0.85)
    np.testing.assert_allclose(both.adjusted.prediction.scores, want, atol=1e-6)
    if granularity == "frame":
        judged = both.adjusted
        assert judged.timeline.scores.shape == both.timeline.scores.shape == judged.frames.scores.shape
        assert judged.segments[-1].end_s == clip.duration_s and judged.segments[0].start_s == 0
    data = result_json.result_to_dict(both)
    jsonschema_rs.Draft202012Validator(SCHEMA, validate_formats=True).validate(data)
    assert data["shown"] == "adjusted" and data["emotion"] == both.prediction.label
    assert data["adjusted"]["emotion"] == both.adjusted.prediction.label
    store = Store(tmp_path / "results", analyzer.settings.limits)
    back = store.open(store.save(both).name)
    np.testing.assert_allclose(back.adjusted.prediction.scores, want, atol=1e-6)
    assert len(back.adjusted.segments) == len(both.adjusted.segments) and back.shown == "adjusted"
    if granularity == "frame":
        np.testing.assert_allclose(back.adjusted.timeline.scores, both.adjusted.timeline.scores, atol=1e-6)


def test_never_under_three_clips(analyzer) -> None:
    few = enrol(analyzer, waves(2), "few")
    assert not few.ready
    result = analyzer.analyze(waves(1)[0], Options(baseline=few.baseline))
    assert result.adjusted is None and result.shown == "plain"
    (note,) = [n for n in result.notes if n.code.startswith("baseline")]
    assert note.code == "baseline_short" and note.severity == "warning" and "2" in note.text("zh")


def test_what_does_not_fit_is_said_before_the_work(analyzer) -> None:
    seen: list[str] = []
    for options, code in (
        (Options(baseline="nobody"), "NO_BASELINE"),
        (Options(baseline="../me"), "BAD_NAME"),
        (Options(baseline=replace(made(5), model="large")), "BASELINE_OTHER_MODEL"),
    ):
        with pytest.raises(RequestError) as caught:
            analyzer.analyze(waves(1)[0], options, progress=lambda p: seen.append(p.step))
        assert caught.value.code == code
    assert "infer" not in seen


def test_enrol_leaves_out_what_says_nothing(analyzer, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_text("no sound")
    sources = [*waves(3), (16_000, np.zeros(32_000, np.float32)), (16_000, voice(0.5)), tmp_path / "bad.wav"]
    told: list[tuple[int, int]] = []
    e = enrol(analyzer, sources, "me", progress=lambda done, total: told.append((done, total)))
    assert [s.why for s in e.clips] == ["", "", "", "silent", "too_short", "UNDECODABLE"]
    assert e.ready and e.baseline.count == 3 and told[0] == (0, 6) and told[-1] == (6, 6)
    more = enrol(analyzer, waves(9)[3:], "me", start=e.baseline, enough=5)
    assert more.baseline.count == 5 and len(more.clips) == 2 and e.baseline.count == 3
    with pytest.raises(RequestError) as caught:
        enrol(analyzer, sources[3:], "me")
    assert caught.value.code == "BASELINE_EMPTY"
    with pytest.raises(RequestError, match="0 - 1"):
        enrol(analyzer, sources, "me", neutral_share=1.5)


def test_order_of_the_clips_does_not_matter_for_the_frames(analyzer) -> None:
    """A live session hands its own frames and a running baseline to ``assemble``: the same answer as ``analyze``."""
    b = enrol(analyzer, waves(4), "me").baseline
    clip = waves(6)[-1]
    heard = analyzer.hear(clip)
    options = Options("frame", baseline=b)
    here = analyzer.assemble(heard.waveform, heard.output, options, heard.loaded, heard.timing)
    there = analyzer.analyze(clip, options)
    np.testing.assert_array_equal(here.adjusted.timeline.scores, there.adjusted.timeline.scores)
    assert b.add(heard.output).count == 5


def test_fit_for_a_checkpoint_without_rule(settings, tmp_path: Path) -> None:
    """A tiny emotion2vec whose unknown is left out: no rule, fit, then used by itself."""
    directory = write_checkpoint(tmp_path / "tiny", tokens=(*HUB_TOKENS[:8], "unuse_8"))
    for number in range(8):
        sound = Waveform(voice(1.2, number))
        _wav(tmp_path / f"{number}.wav", sound)
    items = tuple(
        Item(tmp_path / f"{n}.wav", f"{n}.wav", "c", f"c/{n // 4}", (0, 4, 4, 6)[n % 4], "x", split="train")
        for n in range(8)
    )  # fmt: skip
    analyzer = Analyzer(settings.model_copy(update={"model": str(directory), "precision": "fp32"}))
    try:
        with pytest.raises(RequestError) as caught:
            enrol(analyzer, [items[0].path], "me")
        assert caught.value.code == "BASELINE_NO_RULE" and "baseline fit" in caught.value.text("zh")
        r, info, failed = fit_rule(analyzer, Manifest(tmp_path / "list.csv", items))
        assert failed == () and info.name == "tiny" and r.source == "list.csv, 8 clips"
        save_rule(r, info, analyzer.settings.models_dir)
        b = enrol(analyzer, [item.path for item in items[:4]], "me").baseline
        result = analyzer.analyze(items[5].path, Options("frame", baseline=b))
        assert result.shown == "adjusted" and result.adjusted.prediction.scores[UNKNOWN] == 0
        plain = softmax(pooled(analyzer.hear(items[5].path).output)[0])
        np.testing.assert_allclose(result.prediction.scores, plain, atol=1e-6)
    finally:
        analyzer.close()


def test_missing_model_is_no_fault_of_the_clip(settings) -> None:
    analyzer = Analyzer(settings.model_copy(update={"model": "emotion2vec_plus_large"}))
    with pytest.raises(ModelError):
        enrol(analyzer, waves(3), "me")
    analyzer.close()


def test_created_survives(tmp_path: Path) -> None:
    b = replace(made(3), created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc))
    BaselineStore(tmp_path).save(b)
    assert BaselineStore(tmp_path).open("me").created == b.created and N_EMOTIONS == 9


def _wav(path: Path, sound: Waveform) -> None:
    from emotion_app.result_files import wav_pieces

    path.write_bytes(b"".join(wav_pieces(sound.samples)))
