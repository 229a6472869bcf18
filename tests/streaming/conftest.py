from __future__ import annotations

import pytest

from emotion_app.engine import Engine
from emotion_app.vad import SileroVad
from tests.local_model import LocalModel


@pytest.fixture(scope="session")
def network() -> SileroVad:
    return SileroVad()


@pytest.fixture
def engine() -> Engine:
    return Engine(LocalModel())
