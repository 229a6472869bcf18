"""Conversion: every form of checkpoint, the record, races and kills, and files that are damaged or hostile."""

import json
import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from emotion_app.errors import EmotionError, ModelError, StoreError
from emotion_app.models import weights
from emotion_app.models.loader import load_model
from emotion_app.settings import Settings
from emotion_app.testing import HUB_TOKENS, write_checkpoint
from tests.voices import voice


def logits(directory: Path, settings: Settings) -> np.ndarray:
    model = load_model(str(directory), settings)
    return model.forward([model.prepare(voice(0.6))])[0].logits


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        ("model", "d2v_model."),
        ("state_dict", "d2v_model."),
        ("model_state_dict", ""),
        (None, "d2v_model."),
        (None, ""),
        ("model", "module.d2v_model."),
    ],
)
def test_every_form_of_checkpoint_gives_the_same_numbers(
    tiny: Path, tmp_path: Path, own: Settings, wrap: str | None, prefix: str
):
    other = write_checkpoint(tmp_path / "other", wrap=wrap, prefix=prefix)
    assert np.array_equal(logits(other, own), logits(tiny, own))


def test_legacy_files_safetensors_and_half_precision_are_read(tiny: Path, tmp_path: Path, own: Settings):
    from safetensors.torch import save_file

    content = torch.load(tiny / "model.pt", weights_only=True)
    legacy, safe, half = (write_checkpoint(tmp_path / n) for n in ("legacy", "safe", "half"))
    torch.save(content, legacy / "model.pt", _use_new_zipfile_serialization=False)
    (safe / "model.pt").unlink()
    save_file({k: t.contiguous() for k, t in content["model"].items()}, safe / "model.safetensors")
    torch.save({k: t.half() for k, t in content["model"].items()}, half / "model.pt")
    expected = logits(tiny, own)
    assert np.array_equal(logits(legacy, own), expected)
    assert np.array_equal(logits(safe, own), expected)
    assert np.abs(logits(half, own) - expected).max() < 0.1


def test_converted_once_with_a_record_of_where_it_came_from(tiny: Path, own: Settings):
    made = weights.convert(tiny, own.models_dir, "tiny", "v1", "modelscope", "iic/tiny")
    record = json.loads((made.directory / "record.json").read_text())
    assert record["sha256"] == weights.sha256_of(tiny / "model.pt")
    assert (record["revision"], record["hub"], record["source"]) == ("v1", "modelscope", "iic/tiny")
    size, digest = record["files"]["network.safetensors"]
    assert (
        digest == weights.sha256_of(made.directory / "network.safetensors")
        and size == (made.directory / "network.safetensors").stat().st_size
    )
    assert record["left_out"] == 10  # the decoder
    before = (made.directory / "network.safetensors").stat()
    again = weights.convert(tiny, own.models_dir, "tiny")
    assert again == made and (made.directory / "network.safetensors").stat().st_mtime_ns == before.st_mtime_ns
    assert weights.find_converted(tiny, own.models_dir, "tiny") == made


def test_other_tokens_or_weights_are_another_conversion(tiny: Path, tmp_path: Path, own: Settings):
    one = weights.convert(tiny, own.models_dir, "x")
    two = weights.convert(write_checkpoint(tmp_path / "b", tokens=HUB_TOKENS[::-1]), own.models_dir, "x")
    three = weights.convert(write_checkpoint(tmp_path / "c", seed=1), own.models_dir, "x")
    assert len({one.directory, two.directory, three.directory}) == 3


def test_a_changed_file_is_noticed(tmp_path: Path, own: Settings):
    directory = write_checkpoint(tmp_path / "x")
    first = logits(directory, own)
    write_checkpoint(directory, seed=5)
    assert not np.array_equal(logits(directory, own), first)


def test_a_damaged_conversion_is_made_again(tiny: Path, own: Settings):
    expected = logits(tiny, own)
    home = weights.convert(tiny, own.models_dir, "tiny").directory
    for name, harm in (
        ("network.safetensors", lambda p: p.write_bytes(p.read_bytes()[:1000])),
        ("record.json", lambda p: p.write_text("{")),
    ):
        harm(home / name)
        assert np.array_equal(logits(tiny, own), expected)


def _convert(source: Path, root: Path, start) -> None:
    start.wait(30)
    weights.convert(source, root, "x")


def test_processes_that_convert_at_once_all_succeed(tiny: Path, tmp_path: Path):
    context = multiprocessing.get_context("fork")
    start = context.Event()
    workers = [context.Process(target=_convert, args=(tiny, tmp_path, start)) for _ in range(4)]
    for worker in workers:
        worker.start()
    start.set()
    for worker in workers:
        worker.join(60)
    assert [w.exitcode for w in workers] == [0] * 4
    left = [p.name for p in (tmp_path / "converted").iterdir()]
    assert len([n for n in left if n.startswith("x-")]) == 1 and not [n for n in left if n.startswith(".partial")]


def test_a_kill_leaves_nothing_that_looks_finished(tiny: Path, tmp_path: Path):
    context = multiprocessing.get_context("fork")
    for delay in (0.0, 0.002, 0.005, 0.01, 0.02, 0.03):
        root, start = tmp_path / f"{delay}", context.Event()
        worker = context.Process(target=_convert, args=(tiny, root, start))
        worker.start()
        start.set()
        time.sleep(delay)
        os.kill(worker.pid, signal.SIGKILL)
        worker.join(10)
        found = list((root / "converted").glob("x-*")) if root.exists() else []
        assert all(weights.read_converted(p) is not None for p in found)
        assert weights.convert(tiny, root, "x").record.parameters > 100_000


class _Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


def _damaged(directory: Path, kind: str, canary: Path) -> None:
    file = directory / "model.pt"
    content = torch.load(file, weights_only=True)
    state, qkv = content["model"], "d2v_model.blocks.0.attn.qkv.weight"
    if kind == "cut":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "noise":
        file.write_bytes(np.random.default_rng(0).bytes(5000))
    elif kind == "html":
        file.write_text("<html>Not Found</html>")
    elif kind == "evil":
        torch.save({"model": state, "x": _Evil(canary)}, file)
    elif kind == "evil-legacy":
        file.write_bytes(pickle.dumps({"model": _Evil(canary)}))
    elif kind == "list":
        torch.save([1, 2], file)
    elif kind == "flip":
        data = bytearray(file.read_bytes())
        data[-60] ^= 0xFF
        file.write_bytes(data)
    else:
        if kind == "missing":
            del state[qkv]
        elif kind == "shape":
            state[qkv] = state[qkv][:-1]
        elif kind == "nan":
            state[qkv][3, 3] = float("nan")
        elif kind == "whole numbers":
            state[qkv] = state[qkv].long()
        elif kind == "no head":
            del state["proj.weight"], state["proj.bias"]
        elif kind == "classes":
            state["proj.weight"], state["proj.bias"] = state["proj.weight"][:5], state["proj.bias"][:5]
        torch.save(content, file)


@pytest.mark.parametrize(
    "kind",
    [
        "cut",
        "empty",
        "noise",
        "html",
        "evil",
        "evil-legacy",
        "list",
        "missing",
        "shape",
        "nan",
        "whole numbers",
        "no head",
        "classes",
        "flip",
    ],
)
def test_a_damaged_or_hostile_checkpoint_is_named_and_runs_nothing(tmp_path: Path, own: Settings, kind: str):
    directory, canary = write_checkpoint(tmp_path / "bad"), tmp_path / "canary"
    _damaged(directory, kind, canary)
    with pytest.raises(ModelError) as caught:
        load_model(str(directory), own)
    assert caught.value.code == "MODEL_BROKEN" and caught.value.facts["reason"]
    assert "Traceback" not in caught.value.text("zh") and len(caught.value.text("en")) < 600
    assert not canary.exists()
    assert not list((own.models_dir / "converted").glob("bad-*"))


@pytest.mark.parametrize("name", ["config.yaml", "tokens.txt"])
def test_a_directory_with_a_file_missing_says_which(tmp_path: Path, own: Settings, name: str):
    directory = write_checkpoint(tmp_path / "x")
    (directory / name).unlink()
    with pytest.raises(ModelError, match=name):
        load_model(str(directory), own)


def test_a_disk_that_refuses_is_a_store_error(tiny: Path, own: Settings):
    own.models_dir.parent.mkdir(parents=True, exist_ok=True)
    own.models_dir.write_text("a file where the folder should be")
    with pytest.raises(StoreError):
        load_model(str(tiny), own)


def test_weights_are_read_one_by_one_and_not_kept(tiny: Path, own: Settings):
    made = weights.convert(tiny, own.models_dir, "tiny")
    state = weights.load_state(made, "fp32")
    content = torch.load(tiny / "model.pt", weights_only=True)["model"]
    assert set(state) == {k for k in (n.removeprefix("d2v_model.") for n in content) if ".decoder." not in k}
    assert all(torch.equal(state[k], content.get(k, content.get("d2v_model." + k))) for k in state)
    half = weights.load_state(made, "bf16")
    assert half["blocks.0.attn.qkv.weight"].dtype == torch.bfloat16
    assert torch.equal(half["blocks.0.attn.qkv.weight"], state["blocks.0.attn.qkv.weight"].bfloat16())
    assert half["blocks.0.norm1.weight"].dtype == half["proj.weight"].dtype == torch.float32


@pytest.mark.parametrize("harm", [b"", b"\xff" * 40, b"\x02\0\0\0\0\0\0\0{}", None])
def test_a_damaged_reduced_file_is_made_again(tiny: Path, own: Settings, harm: bytes | None):
    made = weights.convert(tiny, own.models_dir, "tiny")
    weights.load_state(made, "bf16")
    file = made.directory / "network.bf16.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100] if harm is None else harm)
    again = load_model(str(tiny), own.model_copy(update={"precision": "bf16"}))
    assert again.info.precision == "bf16" and file.read_bytes() == whole


def test_errors_are_of_our_tree(tmp_path: Path, own: Settings):
    with pytest.raises(EmotionError):
        load_model(str(tmp_path), own)
