"""The command line as a user runs it: a real process, real exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*args: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "emotion_app", *map(str, args)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        env={**os.environ, "EMOTION_MODEL": "lite", "LC_ALL": "C.UTF-8", **(env or {})},
    )


def test_json_lines_and_exit_code(tmp_path: Path, clips) -> None:
    (tmp_path / "text.wav").write_text("this is no sound")
    options = ["--json", "-g", "frame", "--embedding", "utterance"]
    done = run("analyze", clips[0], tmp_path / "text.wav", clips[1], *options)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 65 and len(lines) == 3
    assert lines[1]["error"]["code"] == "UNDECODABLE" and lines[1]["error"]["zh"]
    keys = {"emotion", "confidence", "scores", "granularity", "timestamp", "frames", "segments", "model"}
    assert set(lines[0]) >= keys


def test_table_and_folder(tmp_path: Path, clips) -> None:
    done = run("analyze", clips[0], "--out", tmp_path, "-g", "frame", env={"EMOTION_LANG": "zh"})
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    assert {p.name for p in folder.iterdir()} == {
        "processed_audio.wav", "result.json", "scores.png", "timeline.png", "frames.csv"}  # fmt: skip
    assert "愤怒" in done.stdout and folder.name in done.stdout.replace("\n", "")


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("analyze", "missing.wav"), 66),
        (("analyze", "missing.wav", "-g", "word"), 64),
        (("models", "path", "emotion2vec_plus_large"), 69),
        (("models", "path", "nonsense"), 64),
        (("serve", "--host", "0.0.0.0"), 78),
        (("analyze",), 2),
    ],
)
def test_exit_codes(args: tuple[str, ...], code: int, tmp_path: Path) -> None:
    done = run(*args, env={"EMOTION_MODELS_DIR": str(tmp_path)})
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_models_list_and_path(tmp_path: Path) -> None:
    rows = json.loads(run("models", "list", "--json").stdout)
    names = {row["name"]: row for row in rows}
    assert {"lite", "emotion2vec_plus_large", "emotion2vec_plus_base", "emotion2vec_plus_seed"} <= set(names)
    assert names["lite"]["path"] and Path(run("models", "path", "lite").stdout.strip()).exists()


def test_doctor(tmp_path: Path) -> None:
    done = run("doctor", "--json", env={"EMOTION_OUTPUTS_DIR": str(tmp_path)})
    checks = {c["topic"]: c for c in json.loads(done.stdout)}
    assert done.returncode == 0, [c for c in checks.values() if c["ok"] is False]
    assert checks["decode m4a (aac)"]["ok"] and checks["decode mp3 (libmp3lame)"]["ok"] and checks["run lite"]["ok"]


def test_models_export(tmp_path: Path) -> None:
    done = run("models", "export", "lite", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert path.parent == tmp_path and path.suffix == ".onnx" and path.stat().st_size > 1e6
    assert run("models", "export", "lite", "--out", tmp_path, "--format", "tflite").returncode == 64
