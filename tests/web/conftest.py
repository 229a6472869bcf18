"""One application in this process, and one served by a process of its own."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from emotion_app.analyzer import Analyzer
from emotion_app.settings import Settings
from emotion_app.store import Store
from tests.served import Served, served


def make_client(settings: Settings, **headers: str) -> Iterator[httpx.Client]:
    from starlette.testclient import TestClient

    from emotion_app.web.server import create_app

    app = create_app(settings, Analyzer(settings), Store(settings.outputs_dir, settings.limits))
    with TestClient(app, base_url="http://127.0.0.1:7860", headers=headers) as client:
        yield client


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("client")
    settings = Settings(
        model="lite", offline=True, outputs_dir=folder / "outputs", models_dir=folder / "models",
        limits={"upload_mb": 1},
    )  # fmt: skip
    yield from make_client(settings)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The same, with a token."""
    folder = tmp_path_factory.mktemp("guarded")
    settings = Settings(model="lite", offline=True, token="open sesame", outputs_dir=folder / "outputs",
                        models_dir=folder / "models")  # fmt: skip
    yield from make_client(settings)


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("served")) as running:
        yield running


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file of this machine that nobody may fetch."""
    path = tmp_path / "secret.wav"
    path.write_bytes(b"RIFF canary canary canary")
    return path
