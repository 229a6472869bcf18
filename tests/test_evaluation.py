"""Figures against hand-computed cases and scikit-learn, lists of clips, the simulated baselines, the report."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emotion_app import scoring
from emotion_app.analyzer import Analyzer
from emotion_app.cli import main
from emotion_app.engine import Engine
from emotion_app.errors import RequestError
from emotion_app.evaluation import Plan, clusters, corpus_report, evaluate, with_baseline
from emotion_app.evaluation_report import as_dict, markdown, write
from emotion_app.hearing import Heards, each
from emotion_app.labels import INDEX, KEYS
from emotion_app.manifest import Item, Manifest, emotion_of, read_manifest
from emotion_app.pool import Loaded
from emotion_app.result_files import wav_pieces
from emotion_app.types import BaselineRule
from tests.local_model import LocalModel
from tests.voices import voice

ANGRY, HAPPY, NEUTRAL, SAD, UNKNOWN = (INDEX[k] for k in ("angry", "happy", "neutral", "sad", "unknown"))


def counts(*rows: tuple[int, int, int]) -> np.ndarray:
    """Confusion counts out of (label, answer, clips)."""
    table = np.zeros((9, 9))
    for label, answer, n in rows:
        table[label, answer] += n
    return table


# -- figures by hand -----------------------------------------------------------------------------------------------


def test_figures_by_hand() -> None:
    """10 neutral (8 right, 2 as sad), 5 angry (3 right, 2 as neutral), 5 sad (1 right, 4 as neutral)."""
    table = counts((NEUTRAL, NEUTRAL, 8), (NEUTRAL, SAD, 2), (ANGRY, ANGRY, 3), (ANGRY, NEUTRAL, 2), (SAD, SAD, 1),
                   (SAD, NEUTRAL, 4))  # fmt: skip
    assert scoring.uar(table) == pytest.approx((0.8 + 0.6 + 0.2) / 3)
    assert scoring.accuracy(table) == pytest.approx(12 / 20)
    f1 = (2 * 8 / (10 + 14), 2 * 3 / (5 + 3), 2 * 1 / (5 + 3))
    assert scoring.macro_f1(table) == pytest.approx(sum(f1) / 3)
    assert scoring.neutral_heavy(table) == pytest.approx(0.85 * 0.8 + 0.15 * (0.6 + 0.2) / 2)
    assert scoring.precisions(table)[[NEUTRAL, ANGRY, SAD]].tolist() == pytest.approx([8 / 14, 1.0, 1 / 3])
    assert np.isnan(scoring.recalls(table)[HAPPY]) and np.isnan(scoring.precisions(table)[HAPPY])
    assert np.isnan(scoring.neutral_heavy(counts((ANGRY, ANGRY, 3))))
    stacked = np.stack([table, counts((SAD, SAD, 2))])
    np.testing.assert_allclose(scoring.uar(stacked), [scoring.uar(table), 1.0])


def test_calibration_by_hand() -> None:
    """Bin 8 of 15 holds .55 (right) and .59 (wrong), bin 14 holds .95 (right) and 1.0 (right)."""
    table = scoring.reliability(np.array([0.55, 0.59, 0.95, 1.0]), np.array([True, False, True, True]))
    gap = (2 * abs(0.57 - 0.5) + 2 * abs(0.975 - 1.0)) / 4
    assert scoring.calibration_error(table) == pytest.approx(gap)
    assert scoring.calibration_error(scoring.reliability(np.full(10, 0.7), np.arange(10) < 7)) == pytest.approx(0)


def test_against_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    dice = np.random.default_rng(0)
    truth = dice.choice([0, 2, 3, 4, 6], 400)
    answer = np.where(dice.random(400) < 0.6, truth, dice.choice([0, 2, 3, 4, 6], 400))
    table = scoring.confusion(truth, answer)
    assert scoring.uar(table) == pytest.approx(metrics.balanced_accuracy_score(truth, answer))
    assert scoring.accuracy(table) == pytest.approx(metrics.accuracy_score(truth, answer))
    assert scoring.macro_f1(table) == pytest.approx(metrics.f1_score(truth, answer, average="macro"))
    np.testing.assert_array_equal(table, metrics.confusion_matrix(truth, answer, labels=range(9)))


def test_intervals_are_over_speakers() -> None:
    """Ten speakers each all right or all wrong: over speakers the interval is wide, over clips it would be narrow."""
    per_speaker = np.stack([counts((SAD, SAD if s % 2 else ANGRY, 100)) for s in range(10)])
    wide = scoring.interval(per_speaker, scoring.accuracy)
    assert wide.value == 0.5 and wide.low == pytest.approx(0.2, abs=0.1) and wide.high == pytest.approx(0.8, abs=0.1)
    single = np.stack([counts((SAD, SAD if n % 2 else ANGRY, 1)) for n in range(1000)])
    narrow = scoring.interval(single, scoring.accuracy)
    expected = 1.96 * (0.25 / 1000) ** 0.5  # of a binomial share
    assert (narrow.high - narrow.low) / 2 == pytest.approx(expected, rel=0.15)
    assert scoring.interval(per_speaker, scoring.accuracy) == wide  # the same draws each time


def test_restrict() -> None:
    scores = np.array([[0.5, 0.1, 0, 0.3, 0.1, 0, 0, 0, 0], [1.0, 0, 0, 0, 0, 0, 0, 0, 0]])
    part = scoring.restrict(scores, [3, 4])
    np.testing.assert_allclose(part[:, [3, 4]], [[0.75, 0.25], [0.5, 0.5]])
    assert (np.delete(part, [3, 4], axis=1) == 0).all()


# -- lists ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "key"),
    [("angry", "angry"), ("Anger", "angry"), ("joy", "happy"), ("开心/happy", "happy"), ("fear", "fearful"),
     ("NEU", "neutral"),
     ("<unk>", "unknown"), ("boredom", None), ("calm", None), ("excited", None), ("3", None), ("", None)],
)  # fmt: skip
def test_labels_are_not_guessed(label: str, key: str | None) -> None:
    assert emotion_of(label) == (None if key is None else INDEX[key])


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(
        "path,corpus,language,speaker,emotion,split\na.wav,c,de,1,angry,test\nb.wav,c,de,2,boredom,test\nc.wav,c,de,2,,\n",
        encoding="utf-8-sig",
    )
    found = read_manifest(path)
    assert found.items[0] == Item(tmp_path / "a.wav", "a.wav", "c", "c/1", 0, "angry", "de", "test")
    assert found.foreign == {"boredom": 1} and found.has_speakers and found.items[2].label == ""
    assert read_manifest(path, label_map={"boredom": "other"}).items[1].emotion == INDEX["other"]


def test_emobox(tmp_path: Path) -> None:
    """EmoBox: data/<corpus>/fold_1/*.jsonl, label_map.json above, wav paths from the top, parts of files."""
    fold = tmp_path / "data" / "cafe" / "fold_1"
    fold.mkdir(parents=True)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "x.wav").write_bytes(b"")
    (fold.parent / "label_map.json").write_text(json.dumps({"p": "Fear", "j": "Happy", "q": "Boredom"}))
    rows = [{"key": f"cafe-{i}", "dataset": "cafe", "wav": "downloads/x.wav", "type": "raw", "sample_rate": 16000,
             "num_frame": 1, "task": "category", "length": 1.5, "emo": emo, "channel": 1}
            for i, emo in enumerate("pjq")]  # fmt: skip
    rows[1] |= {"start_time": 0.5, "end_time": 1.25}
    lines = fold / "cafe_test_fold_1.jsonl"
    lines.write_text("\n".join(map(json.dumps, rows)))
    found = read_manifest(lines)
    assert [i.emotion for i in found.items] == [INDEX["fearful"], HAPPY, None] and found.foreign == {"q": 1}
    assert found.items[0].path.resolve() == (tmp_path / "downloads" / "x.wav").resolve() and not found.has_speakers
    part = found.items[1]
    assert (part.start_s, part.end_s, part.name) == (0.5, 1.25, "downloads/x.wav#t=0.5,1.25")
    by_key = fold / "cafe_test_fold_1.json"
    by_key.write_text(json.dumps({row["key"]: row for row in rows}))
    assert read_manifest(by_key).items == tuple(replace(i) for i in found.items)


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.csv", ""), ("a.csv", "path\n"), ("a.csv", "speaker\n1\n"), ("a.jsonl", "{"), ("a.jsonl", "[1]"),
     ("a.json", "[" * 9999),
     ("a.txt", "x"), ("a.jsonl", '{"wav": "a", "start_time": "soon"}'), ("a.csv", "path\n\udcff")],
)  # fmt: skip
def test_bad_lists(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RequestError) as caught:
        read_manifest(tmp_path / name)
    assert caught.value.code == "BAD_MANIFEST"
    with pytest.raises(RequestError) as caught:
        read_manifest(tmp_path / "missing.csv")
    assert caught.value.code == "NO_SUCH_FILE"


# -- evaluation of made-up logits ----------------------------------------------------------------------------------


def heards(shift: float = 2.5, n_speakers: int = 6, per_class: int = 8, seed: int = 0) -> Heards:
    """Clips whose logits are a class direction plus a speaker's constant shift: what a baseline is for."""
    dice = np.random.default_rng(seed)
    items, rows = [], []
    for speaker in range(n_speakers):
        own = dice.normal(0, shift, 9)
        own[UNKNOWN] = 0
        for label in (ANGRY, HAPPY, NEUTRAL, SAD):
            for n in range(per_class):
                logits = 3 * np.eye(9)[label] + own + dice.normal(0, 0.7, 9)
                logits[UNKNOWN] -= 20
                rows.append(logits)
                path = Path(f"{speaker}-{label}-{n}.wav")
                items.append(Item(path, path.name, "c", f"c/{speaker}", label, KEYS[label], "xx"))
    array = np.array(rows, np.float32)
    d = 3 * np.eye(9, dtype=np.float32)[NEUTRAL] - 0.75 * np.isin(np.arange(9), (ANGRY, HAPPY, NEUTRAL, SAD))
    rule = BaselineRule(np.zeros(9, np.float32), d.astype(np.float32), np.zeros(9, np.float32))
    return Heards(tuple(items), array, array, 100.0, LocalModel().info, rule, ())


def test_report_of_a_corpus() -> None:
    report = corpus_report(heards(), Plan(10))
    assert report.classes == (ANGRY, HAPPY, NEUTRAL, SAD) and report.clusters == "speaker" and report.n_speakers == 6
    assert report.confusion.sum() == report.confusion_all.sum() == 192 and report.languages == ("xx",)
    assert report.restricted.uar.value >= report.unrestricted.uar.value  # here other classes only disturb
    assert report.restricted.uar.low < report.restricted.uar.value < report.restricted.uar.high
    assert set(np.flatnonzero(report.confusion.sum(0))) <= set(report.classes) and report.called_unknown == 0
    assert [b.reference_share for b in report.baselines] == [0.0, 0.4, 0.85]
    for beside in report.baselines:
        assert beside.clips == 192 and beside.figures.uar.value > report.restricted.uar.value + 0.1
    told_wrong = corpus_report(heards(), Plan(10, (0.85,), neutral_share=0.0)).baselines[0]
    assert told_wrong.figures.neutral_heavy.value < report.baselines[2].figures.neutral_heavy.value - 0.1


def test_simulated_baselines_follow_the_app() -> None:
    clips = heards()
    scores, judged = with_baseline(clips, clips.rule, 10, 0.4, 0.4, seed=1)
    assert judged == len(clips.items) and np.allclose(scores.sum(1), 1)
    again, _ = with_baseline(clips, clips.rule, 10, 0.4, 0.4, seed=1)
    np.testing.assert_array_equal(scores, again)
    plain, judged = with_baseline(clips, clips.rule, 2, 0.4, 0.4, seed=1)  # under three: as without
    assert judged == 0 and (plain.argmax(1) == clips.plain.argmax(1)).all()
    alone = replace(clips, items=tuple(replace(i, speaker=None) for i in clips.items))
    assert with_baseline(alone, clips.rule, 10, 0.4, 0.4, seed=1)[1] == 0
    no_rule = corpus_report(replace(clips, rule=None), Plan(10))
    assert no_rule.baselines == ()


def test_intervals_over_clips_only_when_there_is_no_other_way() -> None:
    items = heards().items
    assert clusters(items)[1] == "speaker" and clusters(items)[0].max() == 5
    for some in (items[:30], tuple(replace(i, speaker=None) for i in items), (*items, replace(items[0], speaker=None))):
        rows, kind = clusters(some)
        assert kind == "clip" and (rows == np.arange(len(some))).all()
    report = corpus_report(heards(n_speakers=1), Plan())
    assert report.clusters == "clip" and report.n_speakers == 1


@pytest.mark.parametrize("plan", [{"reference_shares": (1.5,)}, {"neutral_share": -0.1}, {"baseline_clips": -1}])
def test_bad_plans(plan: dict) -> None:
    with pytest.raises(RequestError):
        Plan(**plan)


# -- from sound to report ------------------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    lines = ["path,corpus,speaker,emotion,split"]
    for number in range(8):
        (tmp_path / f"{number}.wav").write_bytes(b"".join(wav_pieces(voice(1.1, number))))
        lines.append(f"{number}.wav,toy,s{number % 2},{('angry', 'neutral', 'happy', 'sad')[number // 2]},test")
    lines += ["1.wav,toy,s1,boredom,test", "2.wav,toy,s1,,test", "missing.wav,toy,s1,sad,test"]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    return tmp_path / "list.csv"


def test_from_sound_to_report(settings, corpus: Path, tmp_path: Path, monkeypatch) -> None:
    analyzer = Analyzer(settings)
    model = LocalModel()
    model.baseline_rule = heards().rule
    monkeypatch.setattr(analyzer.pool, "get", lambda *a, **k: Loaded(Engine(model), (), 0.0))
    told: list[tuple[int, int]] = []
    report = evaluate(analyzer, read_manifest(corpus), Plan(3), jobs=3, progress=lambda done, n: told.append((done, n)))
    assert [(n, e.code) for n, e in report.failures] == [("missing.wav", "NO_SUCH_FILE")]
    assert report.foreign == {"boredom": 1} and report.unlabelled == 1 and told[-1] == (9, 9)
    (toy,) = report.corpora
    assert toy.n_clips == 8 and toy.n_speakers == 2
    for item, answer in zip(read_manifest(corpus).items[:8], range(8), strict=True):  # the same labels as analyze
        assert analyzer.analyze(item.path).prediction.scores.argmax() == report_answer(analyzer, item), answer
    files = write(report, tmp_path / "out")
    assert [f.name for f in files] == ["evaluation.md", "evaluation.json", "confusion_toy.png"]
    assert files[2].read_bytes().startswith(b"\x89PNG") and json.loads(files[1].read_text()) == as_dict(report)
    text = markdown(report)
    assert "boredom (1)" in text and "missing.wav" in text and "Intervals over 2 speakers" in text and "nan" not in text
    analyzer.close()


def report_answer(analyzer: Analyzer, item: Item) -> int:
    part = evaluate(analyzer, Manifest(Path("one.csv"), (item,)))
    return int(part.corpora[0].confusion_all.sum(0).argmax())


def test_parts_of_files(settings, tmp_path: Path, monkeypatch) -> None:
    sound = voice(3.0, 1)
    (tmp_path / "x.wav").write_bytes(b"".join(wav_pieces(sound)))
    (tmp_path / "part.wav").write_bytes(b"".join(wav_pieces(sound[16_000:40_000])))
    rows = [{"wav": "x.wav", "emo": "sad", "start_time": 1.0, "end_time": 2.5}, {"wav": "part.wav", "emo": "sad"}]
    (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, rows)))
    analyzer = Analyzer(settings)
    monkeypatch.setattr(analyzer.pool, "get", lambda *a, **k: Loaded(Engine(LocalModel()), (), 0.0))
    report = evaluate(analyzer, read_manifest(tmp_path / "l.jsonl"), Plan(5))
    assert report.no_rule and report.seconds == pytest.approx(3.0)
    assert report.corpora[0].confusion_all.max() == 2  # both got the same answer
    assert "no numbers for it yet" in markdown(report) and "single clips" in markdown(report)
    analyzer.close()


def test_command_line(corpus: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("EMOTION_MODEL", "lite")
    with pytest.raises(SystemExit) as done:
        main(["evaluate", str(corpus), "--map", "boredom=other", "--json", "--out", str(tmp_path / "o"),
              "--baseline-clips", "3"])  # fmt: skip
    data = json.loads(capsys.readouterr().out)
    assert done.value.code == 0 and data["model"]["name"] == "lite" and data["left_out"]["foreign_labels"] == {}
    assert data["corpora"][0]["by_class"]["other"]["clips"] == 1 and (tmp_path / "o" / "evaluation.md").is_file()
    assert [b["reference_neutral_share"] for b in data["corpora"][0]["with_baseline"]] == [0.0, 0.4, 0.85]
    for args, code in ((["--map", "x=y"], 64), (["--corpus", "none"], 65), (["--neutral-share", "2"], 64)):
        with pytest.raises(SystemExit) as done:
            main(["evaluate", str(corpus), *args])
        assert done.value.code == code


def test_each_waits_for_a_full_queue() -> None:
    from emotion_app.errors import BusyError

    tries: dict[int, int] = {}

    def work(task: int) -> int:
        tries[task] = tries.get(task, 0) + 1
        if tries[task] < 2:
            raise BusyError("BUSY", retry_after_s=1)
        if task == 3:
            raise RequestError("NO_INPUT")
        return task * task

    done = list(each(range(6), work, jobs=3))
    assert sorted(d.value for d in done if d.error is None) == [0, 1, 4, 16, 25]
    assert [d.error.code for d in done if d.error] == ["NO_INPUT"]
