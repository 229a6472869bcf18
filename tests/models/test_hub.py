"""Downloads by the hubs' real clients from a hub on 127.0.0.1: progress, resume, hashes, hangs, refusals."""

import hashlib
import json
import shutil
import socket
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch

from emotion_app.errors import BusyError, ModelError, StoreError
from emotion_app.models import hub, loader
from emotion_app.settings import Settings
from tests.models.fake_hub import COMMIT, FakeHub, serve

REPOS = {"modelscope": "iic/emotion2vec_plus_large", "huggingface": "emotion2vec/emotion2vec_plus_large"}
NAME = "emotion2vec_plus_large"
VARIABLES = {"modelscope": "MODELSCOPE_ENDPOINT", "huggingface": "HF_ENDPOINT"}
NOBODY = "http://127.0.0.1:9"  # the discard port: refused at once


@pytest.fixture(scope="module")
def repository(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 24 MB, so that a broken download has something to continue."""
    directory = tmp_path_factory.mktemp("repository") / "r"
    shutil.copytree(tiny, directory)
    content = torch.load(directory / "model.pt", weights_only=True)
    content["model"]["ballast"] = torch.rand(6_000_000)
    torch.save(content, directory / "model.pt")
    (directory / "example").mkdir()
    (directory / "example" / "test.wav").write_bytes(b"RIFF")
    (directory / "README.md").write_text("not wanted")
    return directory


@pytest.fixture(params=["modelscope", "huggingface"])
def served(request: pytest.FixtureRequest, repository: Path, own: Settings, monkeypatch: pytest.MonkeyPatch):
    """(hub, settings) with one real client pointed at the fake hub and the other at nobody."""
    which = request.param
    fake = FakeHub(repository, REPOS[which])
    for variable in VARIABLES.values():
        monkeypatch.setenv(variable, NOBODY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve(fake) as url:
        monkeypatch.setenv(VARIABLES[which], url)
        yield fake, own.model_copy(update={"offline": False, "hub": which})


def test_a_download_reports_progress_and_is_recorded(served, repository: Path):
    fake, settings = served
    said: list[tuple[float, str]] = []
    directory = loader.fetch(NAME, settings, lambda part, line: said.append((part, line)))
    assert said[-1][0] == 1.0 and "25 / 25 MB" in said[-1][1]
    assert [p for p, _ in said] == sorted(p for p, _ in said)
    assert (
        hashlib.sha256((directory / "model.pt").read_bytes()).hexdigest()
        == hashlib.sha256((repository / "model.pt").read_bytes()).hexdigest()
    )
    assert (directory / "example" / "test.wav").is_file() and not (directory / "README.md").exists()
    record = json.loads((directory / "download.json").read_text())
    assert record["hub"] == settings.hub and record["repo"] == fake.repo
    assert record["revision"] == (COMMIT if settings.hub == "huggingface" else "master")
    asked = len(fake.requests)
    model = loader.load_model("auto", settings)
    assert model.info.name == NAME and model.info.source == fake.repo and model.info.revision == record["revision"]
    assert loader.fetch(NAME, settings) == directory and len(fake.requests) == asked


def test_the_other_hub_is_asked_when_the_first_does_not_answer(served):
    fake, settings = served
    other = "huggingface" if settings.hub == "modelscope" else "modelscope"
    directory = loader.fetch(NAME, settings.model_copy(update={"hub": other}))
    assert fake.repo.replace("/", "--") in str(directory)


def test_a_download_that_breaks_is_continued_by_the_next(served):
    """Killed when half was there: the next process asks for the rest only."""
    fake, settings = served
    fake.cut_after = 15_000_000
    stop = threading.Event()

    def cancel_at_half(part: float, line: str) -> None:
        if part > 0.35:
            stop.set()

    with pytest.raises(BusyError):
        hub.fetch(hub_model(), settings, cancel_at_half, stop)
    assert loader.resolve(NAME, settings).directory is None
    kept = sum(p.stat().st_size for p in settings.models_dir.rglob("*") if p.is_file())
    assert kept > 10_000_000
    fake.cut_after, fake.sent = None, 0
    loader.fetch(NAME, settings)
    assert fake.sent < 15_000_000 and any("model.pt" in path and wanted for _, path, wanted in fake.requests)


def hub_model():
    from emotion_app.models.catalog import find

    return find(NAME)


def test_bytes_that_differ_from_the_listing_are_refused(served):
    fake, settings = served
    fake.spoil = True
    with pytest.raises(ModelError) as caught:
        loader.fetch(NAME, settings)
    assert caught.value.code == "MODEL_OFFLINE"
    assert loader.resolve(NAME, settings).directory is None


def test_a_hub_that_stops_sending_is_left(served, monkeypatch: pytest.MonkeyPatch):
    fake, settings = served
    fake.stall = True
    monkeypatch.setattr(hub, "STALL_S", 2.0)
    start = time.monotonic()
    with pytest.raises(ModelError, match="no data for 2 s"):
        loader.fetch(NAME, settings)
    assert time.monotonic() - start < 20


def test_cancel_ends_a_download_within_a_second(served):
    fake, settings = served
    fake.stall = True
    stop = threading.Event()
    threading.Timer(3.0, stop.set).start()
    start = time.monotonic()
    with pytest.raises(BusyError) as caught:
        hub.fetch(hub_model(), settings, None, stop)
    assert caught.value.code == "CANCELLED" and 2.9 < time.monotonic() - start < 4.5


def test_a_disk_without_room_is_said_before_the_download(served):
    fake, settings = served
    full = settings.model_copy(update={"limits": settings.limits.model_copy(update={"disk_free_mb": 1e9})})
    with pytest.raises(StoreError) as caught:
        loader.fetch(NAME, full)
    assert caught.value.code == "DISK_FULL" and fake.sent == 0


def test_a_repository_that_is_not_there_is_said(served):
    _, settings = served
    with pytest.raises(ModelError) as caught:
        loader.fetch("nobody/nothing", settings)
    assert caught.value.code == "MODEL_OFFLINE"


def _timed(settings: Settings, name: str = NAME) -> tuple[float, ModelError]:
    start = time.monotonic()
    with pytest.raises(ModelError) as caught:
        loader.load_model(name, settings)
    return time.monotonic() - start, caught.value


def test_hubs_that_refuse_are_a_quick_answer(own: Settings, monkeypatch: pytest.MonkeyPatch):
    for variable in VARIABLES.values():
        monkeypatch.setenv(variable, NOBODY)
    seconds, error = _timed(own.model_copy(update={"offline": False}))
    assert error.code == "MODEL_OFFLINE" and seconds < 2
    assert "modelscope" in error.text("en") and "huggingface" in error.text("zh")


def test_hubs_that_hang_are_a_quick_answer(own: Settings, monkeypatch: pytest.MonkeyPatch):
    """A socket that accepts and never says a word, and a port where nobody accepts."""
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        for variable in VARIABLES.values():
            monkeypatch.setenv(variable, f"http://127.0.0.1:{silent.getsockname()[1]}")
        seconds, error = _timed(own.model_copy(update={"offline": False, "hub_connect_s": 1.0}))
    assert error.code == "MODEL_OFFLINE" and 1.5 < seconds < 4


def test_a_name_server_that_hangs_is_a_quick_answer(own: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: time.sleep(8))
    for variable in VARIABLES.values():
        monkeypatch.setenv(variable, "http://hub.invalid")
    seconds, error = _timed(own.model_copy(update={"offline": False, "hub_connect_s": 0.5}))
    assert error.code == "MODEL_OFFLINE" and seconds < 3 and "no answer" in error.text("en")


@pytest.mark.parametrize("address", ["file:///etc", "ftp://127.0.0.1", "gopher://x"])
def test_only_web_addresses_are_asked(own: Settings, monkeypatch: pytest.MonkeyPatch, address: str):
    for variable in VARIABLES.values():
        monkeypatch.setenv(variable, address)
    _, error = _timed(own.model_copy(update={"offline": False}))
    assert error.code == "MODEL_OFFLINE" and "web address" in error.text("en")


@pytest.mark.parametrize(
    "path",
    [
        "example/../../x",
        "/etc/passwd",
        "example/..\\x",
        "example/../model.pt",
        "C:model.pt",
        "",
        "README.md",
        "x/model.pt",
    ],
)
def test_a_listed_name_that_leaves_the_directory_is_not_fetched(path: str):
    from emotion_app.models.download import _wanted

    assert not _wanted(path, hub.FILES) and _wanted("model.pt", hub.FILES) and _wanted("example/test.wav", hub.FILES)
