"""Batches: every file gets its row, none stops the others, a killed run goes on, the numbers are those of analyze."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emotion_app.analyzer import Analyzer, Options
from emotion_app.batch import BatchPlan, group_name, run_batch, spread
from emotion_app.batch_files import COLUMNS, ResultLog, collect
from emotion_app.cli import main
from emotion_app.engine import Engine
from emotion_app.enrol import enrol
from emotion_app.errors import RequestError
from emotion_app.labels import KEYS
from emotion_app.manifest import Item
from emotion_app.pool import Loaded
from emotion_app.result_files import wav_pieces
from tests.local_model import LocalModel
from tests.test_baseline import MODEL, rule
from tests.voices import voice

ROOT = Path(__file__).parents[1]


def wav(path: Path, seed: int, seconds: float = 1.1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(wav_pieces(voice(seconds, seed))))
    return path


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """Two speakers' folders, one clip alone, one file that is no sound, one that pretends to be a formula."""
    for speaker in range(2):
        for n in range(4):
            wav(tmp_path / "in" / f"s{speaker}" / f"{n}.wav", 10 * speaker + n)
    wav(tmp_path / "in" / "alone" / "中文 name.wav", 30)
    (tmp_path / "in" / "s1" / "bad.wav").write_text("no sound")
    (tmp_path / "in" / "readme.txt").write_text("text")
    (tmp_path / "in" / ".hidden.wav").write_text("x")
    return tmp_path / "in"


@pytest.fixture
def analyzer(settings, monkeypatch):
    made = Analyzer(settings)
    model = LocalModel()
    model.info, model.baseline_rule = MODEL, rule()
    model._head[:, KEYS.index("unknown")] = 0
    loaded = Loaded(Engine(model), (), 0.0)
    monkeypatch.setattr(made.pool, "get", lambda *args, **kwargs: loaded)
    yield made
    made.close()


def table(out: Path) -> list[dict[str, str]]:
    text = (out / "results.csv").read_bytes()
    assert text.startswith(b"\xef\xbb\xbf")
    return list(csv.DictReader(text.decode("utf-8-sig").splitlines()))


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("granularity", ["utterance", "frame"])
def test_the_numbers_are_those_of_analyze(analyzer, sounds: Path, tmp_path: Path, granularity: str) -> None:
    steps = []
    plan = BatchPlan(Options(granularity), jobs=4)
    summary = run_batch(analyzer, [sounds], tmp_path / "out", plan, progress=steps.append)
    assert (summary.done, summary.known, summary.passed_over) == (9, 0, 2)
    assert [(Path(name).name, error.code) for name, error in summary.failed] == [("bad.wav", "UNDECODABLE")]
    assert [step.done for step in steps] == list(range(1, 11)) and steps[-1].failed == 1
    lines = table(tmp_path / "out")
    assert [Path(line["path"]).parts[-2:] for line in lines] == [
        ("alone", "中文 name.wav"), *((f"s{s}", f"{n}.wav") for s in range(2) for n in range(4)), ("s1", "bad.wav"),
    ]  # fmt: skip
    for line in lines[:-1]:
        want = analyzer.analyze(Path(line["path"]))
        assert line["emotion"] == want.prediction.label and line["shown"] == "plain"
        for key, score in want.prediction.as_dict().items():
            assert float(line[key]) == pytest.approx(score, abs=1e-6)
    assert lines[-1]["error_code"] == "UNDECODABLE" and lines[-1]["emotion"] == ""
    assert (tmp_path / "out" / "segments.csv").exists() == (granularity == "frame")
    for row in rows(tmp_path / "out"):
        assert "error" in row or (row["frames"] is None) == (granularity == "utterance")


def test_resume(analyzer, sounds: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_batch(analyzer, [sounds], out)
    with pytest.raises(RequestError) as caught:
        run_batch(analyzer, [sounds], out)
    assert caught.value.code == "OUT_IN_USE"
    again = run_batch(analyzer, [sounds], out, BatchPlan(resume=True))
    assert (again.done, again.known, len(again.failed)) == (0, 9, 1)
    wav(sounds / "s0" / "2.wav", 99)  # another content under the same name
    (sounds / "s0" / "copy.wav").write_bytes((sounds / "s1" / "3.wav").read_bytes())  # the same under another
    wav(sounds / "s1" / "bad.wav", 50)  # mended
    third = run_batch(analyzer, [sounds], out, BatchPlan(resume=True))
    assert (third.done, third.known, third.failed) == (3, 8, ())
    lines = {Path(line["path"]).parts[-2:]: line for line in table(out)}
    assert len(lines) == 11 and all(not line["error"] for line in lines.values())
    assert lines["s0", "copy.wav"]["confidence"] == lines["s1", "3.wav"]["confidence"]
    assert next(r for r in rows(out) if r["path"].endswith("copy.wav"))["source"]["name"] == "copy.wav"
    want = analyzer.analyze(sounds / "s0" / "2.wav").prediction
    assert float(lines["s0", "2.wav"]["confidence"]) == pytest.approx(want.confidence, abs=1e-6)
    other = run_batch(analyzer, [sounds], out, BatchPlan(Options(window_s=0.5), resume=True))
    assert other.done == 11  # other options are other work


def test_a_torn_line_costs_one_clip(analyzer, sounds: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_batch(analyzer, [sounds], out)
    whole = (out / "results.jsonl").read_bytes()
    last = [line for line in whole.splitlines(keepends=True) if b'"error": {' not in line][-1]
    (out / "results.jsonl").write_bytes(whole.replace(last, b"") + last[: len(last) // 2])
    (out / "results.csv").unlink()
    again = run_batch(analyzer, [sounds], out, BatchPlan(resume=True))
    assert (again.done, again.known) == (1, 8) and len(table(out)) == 10


@pytest.mark.parametrize("mode", ["per-folder", "per-speaker-column", "by name"])
def test_baselines(analyzer, sounds: Path, tmp_path: Path, mode: str) -> None:
    out, inputs, baseline = tmp_path / "out", [sounds], mode
    if mode == "per-speaker-column":
        lines = [{"path": f"s{s}/{n}.wav", "speaker": f"p{s}"} for n in range(4) for s in range(2)]
        (sounds / "list.jsonl").write_text("\n".join(map(json.dumps, [*lines, {"path": "alone/中文 name.wav"}])))
        inputs = [sounds / "list.jsonl"]
    if mode == "by name":
        analyzer.baselines.save(enrol(analyzer, sorted((sounds / "s0").iterdir()), "someone").baseline)
        baseline = "someone"
    summary = run_batch(analyzer, inputs, out, BatchPlan(baseline=baseline, jobs=3))
    lines_ = {Path(line["path"]).as_posix()[-8:]: line for line in table(out)}
    first, second = lines_["s0/1.wav"], lines_["s1/1.wav"]
    assert first["shown"] == second["shown"] == "adjusted" and first["baseline_clips"] == "4"
    assert (first["baseline"] == second["baseline"]) == (mode == "by name")
    alone = lines_[" name.wav"[-8:]]
    assert alone["shown"] == ("adjusted" if mode == "by name" else "plain")
    assert ("baseline_short" in alone["notes"]) == (mode == "per-folder")
    kept = rows(out)
    if mode != "by name":
        store = analyzer.baselines.__class__(out / "baselines")
        b = store.open(first["baseline"])
        assert b.neutral_share == 0.4 and b.count == 4
        want = analyzer.analyze(sounds / "s0" / "1.wav", Options(baseline=b))
        assert float(first["confidence"]) == pytest.approx(want.adjusted.prediction.confidence, abs=1e-6)
        assert float(first["plain_confidence"]) == pytest.approx(want.prediction.confidence, abs=1e-6)
    again = run_batch(analyzer, inputs, out, BatchPlan(baseline=baseline, resume=True))
    assert again.done == 0 and again.known == summary.done and len(rows(out)) == len(kept) + len(summary.failed)


def test_what_cannot_work_is_said_at_once(analyzer, sounds: Path, tmp_path: Path) -> None:
    for inputs, plan, code in (
        ([tmp_path / "out"], BatchPlan(), "NO_INPUT"),
        ([sounds], BatchPlan(baseline="nobody"), "NO_BASELINE"),
        ([sounds], BatchPlan(baseline="per-speaker-column"), "BAD_OPTION"),
    ):
        (tmp_path / "out").mkdir(exist_ok=True)
        with pytest.raises(RequestError) as caught:
            run_batch(analyzer, inputs, tmp_path / "out", plan)
        assert caught.value.code == code
        assert not (tmp_path / "out" / "results.jsonl").exists()


def test_collect(sounds: Path, tmp_path: Path) -> None:
    wav(sounds / "out" / "old.wav", 1)
    found = collect([sounds / "s0", sounds / "s0" / "1.wav", sounds / "alone"], sounds / "out")
    assert [i.path.name for i in found.items] == ["0.wav", "1.wav", "2.wav", "3.wav", "中文 name.wav"]
    assert len(collect([sounds], sounds / "out").items) == 10


def test_spread_and_names() -> None:
    items = [Item(Path(str(i)), str(i)) for i in range(25)]
    chosen = [int(i.name) for i in spread(items, 5, 8)]
    assert chosen == [0, 6, 12, 18, 24, 1, 2, 3] and [i.name for i in spread(items[:2], 5, 8)] == ["0", "1"]
    names = {group_name(g) for g in ("", "/", "a/b", "a_b", "目录/一", "../..", "x" * 300, ".")}
    assert len(names) == 8 and all(len(n) <= 40 for n in names)


def test_formulas_are_text(analyzer, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    wav(tmp_path / "=1+1.wav", 1)
    run_batch(analyzer, [Path("=1+1.wav"), Path("@missing.wav")], tmp_path / "out")
    assert [line["path"] for line in table(tmp_path / "out")] == ["'=1+1.wav", "'@missing.wav"]
    assert list(table(tmp_path / "out")[0]) == list(COLUMNS)


def test_the_log_survives_lone_surrogates(tmp_path: Path) -> None:
    """A file name that is no UTF-8 must not end a batch."""
    log = ResultLog(tmp_path / "o", resume=False)
    log.add({"path": "a\udcff.wav", "speaker": None, "group": None, "content": "", "options": "",
             "error": {"code": "EMPTY", "en": "x", "zh": "y"}})  # fmt: skip
    log.close(["a\udcff.wav"])
    assert len(table(tmp_path / "o")) == 1


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_interrupted(tmp_path: Path, monkeypatch, capsys) -> None:
    """After kill -9 a run goes on; Ctrl-C keeps what is done and writes the table; the last run makes it whole."""
    for n in range(24):
        wav(tmp_path / "in" / f"{n:02d}.wav", n, 2.0)
    out = tmp_path / "out"
    log = out / "results.jsonl"
    command = ["batch", str(tmp_path / "in"), "--out", str(out), "--jobs", "1", "--resume"]
    env = {**os.environ, "EMOTION_MODEL": "lite", "EMOTION_THREADS": "1"}
    before = 0
    for sign in (signal.SIGKILL, signal.SIGINT):
        running = subprocess.Popen(
            [sys.executable, "-m", "emotion_app", *command], cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True
        )
        end = time.monotonic() + 120
        while not (log.exists() and log.read_bytes().count(b"\n") >= before + 2):
            assert running.poll() is None and time.monotonic() < end
            time.sleep(0.005)
        running.send_signal(sign)
        _, said = running.communicate(timeout=60)
        before = log.read_bytes().count(b"\n")
    if before < 24:  # else the run was faster than the signal
        assert running.returncode == 130 and "Traceback" not in said and "--resume" in said
        assert len(table(out)) == before
    monkeypatch.setenv("EMOTION_MODEL", "lite")
    with pytest.raises(SystemExit) as done:
        main([*command, "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert done.value.code == 0 and facts["done"] + facts["known"] == 24 and facts["known"] >= 4
    assert len(table(out)) == 24
