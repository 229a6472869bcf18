"""The result cache: right answers, bounded memory."""

import numpy as np

from emotion_app.cache import FrameCache, cache_key
from emotion_app.types import FrameOutput
from tests.local_model import LocalModel


def output(frames: int, *, features: bool = False) -> FrameOutput:
    zeros = np.zeros((frames, 9), np.float32)
    return FrameOutput(zeros, np.zeros(16, np.float32), np.zeros((frames, 16), np.float32) if features else None)


def test_key_is_content_and_model() -> None:
    info = LocalModel().info
    a, b = np.zeros(10, np.float32), np.ones(10, np.float32)
    assert cache_key(a, info) == cache_key(a.copy(), info) != cache_key(b, info)
    assert cache_key(a, info) != cache_key(a, LocalModel(device="cuda:0").info)


def test_bounded_and_least_recently_used_goes_first() -> None:
    one = output(100)
    size = one.logits.nbytes + one.mean_feature.nbytes
    cache = FrameCache(2.5 * size / 1e6)
    for key in "ab":
        cache.put((key,), output(100))
    assert cache.get(("a",), features=False) is not None
    cache.put(("c",), output(100))
    assert cache.get(("b",), features=False) is None and cache.get(("a",), features=False) is not None
    cache.put(("huge",), output(10_000))
    assert cache.get(("huge",), features=False) is None and cache.n_bytes <= 2.5 * size
    cache.put(("a",), output(50))
    assert cache.n_bytes <= 2 * size


def test_features_are_asked_for() -> None:
    cache = FrameCache(1)
    cache.put(("a",), output(10))
    assert cache.get(("a",), features=True) is None
    cache.put(("a",), output(10, features=True))
    assert cache.get(("a",), features=True) is not None


def test_zero_switches_off() -> None:
    cache = FrameCache(0)
    cache.put(("a",), output(1))
    assert cache.get(("a",), features=False) is None
