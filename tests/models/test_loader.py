"""Names, directories and hub ids; the `auto` policy; what is found on disk without asking anybody."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from emotion_app.errors import ModelError
from emotion_app.models import loader
from emotion_app.settings import Settings
from tests.voices import voice

LARGE = "iic--emotion2vec_plus_large"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("somebody asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_auto_answers_with_the_embedded_model_and_says_so(own: Settings):
    choice = loader.resolve("auto", own.model_copy(update={"offline": False}))
    assert choice.name == "lite" and choice.ready
    assert "models get emotion2vec_plus_large" in choice.reason.text("en") and "获取" in choice.reason.text("zh")
    assert "offline" in loader.resolve("auto", own).reason.text("en")


@pytest.mark.parametrize(
    "place",
    [
        f".cache/modelscope/models/{LARGE}/snapshots/master",
        "home:.cache/modelscope/hub/models/iic/emotion2vec_plus_large",
        "home:.cache/modelscope/hub/iic/emotion2vec_plus_large",
        "home:.cache/modelscope/models/iic/emotion2vec_plus_large",
        "home:.cache/huggingface/hub/models--emotion2vec--emotion2vec_plus_large/snapshots/abc123",
        "MODELSCOPE_CACHE:models/iic/emotion2vec_plus_large",
        "MODELSCOPE_CACHE:iic/emotion2vec_plus_large",
        "HF_HOME:hub/models--emotion2vec--emotion2vec_plus_large/snapshots/abc123",
        "HF_HUB_CACHE:models--emotion2vec--emotion2vec_plus_large/snapshots/abc123",
    ],
)
def test_auto_takes_the_large_model_wherever_the_hubs_left_it(
    tiny: Path, tmp_path: Path, own: Settings, monkeypatch: pytest.MonkeyPatch, place: str
):
    variable, _, below = place.rpartition(":")
    root = tmp_path / "home"
    if variable and variable != "home":
        root = tmp_path / "elsewhere"
        monkeypatch.setenv(variable, str(root))
    shutil.copytree(tiny, root / below)
    choice = loader.resolve("auto", own)
    assert (choice.name, choice.directory, choice.reason) == ("emotion2vec_plus_large", root / below, None)
    model = loader.load_model("auto", own)
    assert model.info.name == "emotion2vec_plus_large" and not model.info.embedded
    if "abc123" in below:
        assert model.info.revision == "abc123"


def test_a_half_finished_copy_does_not_count(tiny: Path, tmp_path: Path, own: Settings):
    place = tmp_path / "home/.cache/modelscope/models/iic/emotion2vec_plus_large"
    shutil.copytree(tiny, place)
    (place / "model.pt").rename(place / "model.pt.incomplete")
    assert loader.resolve("auto", own).name == "lite"
    with pytest.raises(ModelError) as caught:
        loader.model_path("emotion2vec_plus_large", own)
    assert caught.value.code == "MODEL_MISSING"


def test_a_directory_a_name_and_a_hub_id_are_one_argument(tiny: Path, tmp_path: Path, own: Settings):
    shutil.copytree(tiny, tmp_path / "home/.cache/modelscope/models/somebody--finetuned.v2/snapshots/master")
    names = {
        n: loader.resolve(n, own)
        for n in (
            str(tiny),
            "emotion2vec_plus_large",
            "iic/emotion2vec_plus_large",
            "emotion2vec/emotion2vec_plus_large",
            "somebody/finetuned.v2",
            "lite",
        )
    }
    assert names[str(tiny)].directory == tiny.resolve()
    assert {names[n].name for n in list(names)[1:4]} == {"emotion2vec_plus_large"}
    assert names["somebody/finetuned.v2"].directory is not None and names["lite"].ready


@pytest.mark.parametrize(
    "name", ["gpt", "../x", "/nowhere/at/all", "a/b/c", "iic/..", "http://127.0.0.1/x", "-x", "\x00"]
)
def test_an_unknown_name_says_what_is_known(own: Settings, name: str):
    with pytest.raises(ModelError) as caught:
        loader.resolve(name, own)
    assert caught.value.code == "MODEL_UNKNOWN" and "emotion2vec_plus_large" in caught.value.text("zh")


def test_offline_asks_nobody_and_says_so(own: Settings):
    for name in ("emotion2vec_plus_large", "emotion2vec_base_finetuned", "somebody/else"):
        with pytest.raises(ModelError) as caught:
            loader.load_model(name, own)
        assert caught.value.code == "MODEL_OFFLINE" and "offline" in caught.value.text("en")


def test_known_models_have_unique_names_and_ids():
    known = loader.known_models()
    ids = [i for m in known for i in (m.name, m.modelscope, m.huggingface) if i]
    assert known[0].name == "emotion2vec_plus_large" and known[-1].name == "lite" and len(ids) == len(set(ids))


def test_progress_ends_at_one_and_never_goes_back(tiny: Path, own: Settings):
    said: list[tuple[float, str]] = []
    loader.load_model(str(tiny), own, lambda part, line: said.append((part, line)))
    parts = [part for part, _ in said]
    assert parts == sorted(parts) and parts[-1] == 1.0 and all(line for _, line in said)


def test_inspect_reads_no_weights(tiny: Path, own: Settings):
    before = loader.inspect(str(tiny), own)
    assert before.weights == tiny / "model.pt" and before.checkpoint is None and not own.models_dir.exists()
    loader.load_model(str(tiny), own)
    after = loader.inspect(str(tiny), own)
    assert after.checkpoint.record.sha256 and loader.inspect("emotion2vec_plus_large", own).weights is None


def test_the_reference_engine_and_devices_that_are_not_here(tiny: Path, own: Settings):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    for device in ("cuda", "cuda:7", "tpu"):
        with pytest.raises(ModelError) as caught:
            loader.load_model(str(tiny), own.model_copy(update={"device": device}))
        assert caught.value.code == "ENGINE_UNAVAILABLE"
    with pytest.raises(ModelError) as caught:
        loader.load_model("lite", own.model_copy(update={"engine": "funasr"}))
    assert caught.value.code == "ENGINE_UNAVAILABLE"


def test_threads_follow_the_setting_or_the_cores_of_this_process(own: Settings):
    import os

    assert loader.thread_count(own.model_copy(update={"threads": 3})) == 3
    assert loader.thread_count(own.model_copy(update={"threads": 0})) == len(os.sched_getaffinity(0))


def test_a_wish_for_another_precision_is_answered_and_said(tiny: Path, own: Settings):
    for wish in ("int8", "fp16"):
        model = loader.load_model(str(tiny), own.model_copy(update={"precision": wish, "device": "cpu"}))
        assert (
            model.info.precision == "fp32" and wish in model.notes[0].text("en") and wish in model.notes[0].text("zh")
        )


def test_importing_the_loader_does_not_import_torch():
    heavy = "('torch', 'modelscope', 'funasr')"
    code = f"import sys, emotion_app.models.loader; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_loaded_models_answer(tiny: Path, own: Settings):
    model = loader.load_model(str(tiny), own)
    assert model.forward([model.prepare(voice(0.5))])[0].logits.shape == (24, 9)
