"""Pooling: one identity, any interval, smoothing, segments."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emotion_app import timeline
from emotion_app.errors import ModelError
from emotion_app.labels import INDEX, KEYS
from emotion_app.timeline import MIN_SEGMENT_S, Pooled, build, softmax
from emotion_app.types import EXCLUDED_LOGIT, FRAME_RATE, HOP_S, FrameOutput, n_frames

LOGITS = st.integers(1, 120).flatmap(
    lambda t: arrays(np.float32, (t, 9), elements=st.floats(-30, 30, width=32, allow_nan=False))
)
EIGHTHS = st.integers(1, 120).flatmap(  # sums are exact, so a tie is a tie wherever it is looked at
    lambda t: arrays(np.int16, (t, 9), elements=st.integers(-240, 240))
)
QUICK = settings(max_examples=150, deadline=None)


def frames_of(*stretches: tuple[str, float], strength: float = 6.0) -> np.ndarray:
    """Logits (T, 9) that say one emotion for some seconds, then the next."""
    rows = [np.tile(np.eye(9, dtype=np.float32)[INDEX[key]] * strength, (round(s * FRAME_RATE), 1))
            for key, s in stretches]
    return np.concatenate(rows)


def output(logits: np.ndarray) -> FrameOutput:
    return FrameOutput(logits, np.zeros(4, np.float32))


@given(LOGITS)
@QUICK
def test_utterance_is_softmax_of_the_mean(logits: np.ndarray) -> None:
    expected = softmax(logits.astype(np.float64).mean(axis=0))
    np.testing.assert_allclose(Pooled(logits).whole().scores, expected, atol=1e-6)


@given(LOGITS, st.data())
@QUICK
def test_any_interval_equals_the_naive_mean(logits: np.ndarray, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(logits) - 1))
    stop = data.draw(st.integers(start + 1, len(logits)))
    expected = softmax(logits[start:stop].astype(np.float64).mean(axis=0))
    np.testing.assert_allclose(Pooled(logits).pool(start, stop).scores, expected, atol=1e-9)


@given(LOGITS, st.sampled_from([0.02, 0.1, 0.5, 1.0, 3.0]))
@QUICK
def test_smoothing_equals_the_naive_moving_mean(logits: np.ndarray, window_s: float) -> None:
    half = round(window_s * FRAME_RATE) // 2
    expected = [softmax(logits[max(0, t - half): t + half + 1].astype(np.float64).mean(axis=0))
                for t in range(len(logits))]
    smoothed = Pooled(logits).smoothed(window_s)
    np.testing.assert_allclose(smoothed.scores, expected, atol=1e-6)
    assert smoothed.window_s == window_s and smoothed.scores.dtype == np.float32


@given(EIGHTHS, st.sampled_from([0.02, 0.1, 1.0]), st.floats(0, 0.025))
@QUICK
def test_segments_tile_the_clip(logits: np.ndarray, window_s: float, tail_s: float) -> None:
    duration_s = len(logits) * HOP_S + tail_s
    pooled = Pooled((logits / 8).astype(np.float32))
    segments = pooled.segments(pooled.smoothed(window_s), duration_s)
    assert segments[0].start_s == 0 and segments[-1].end_s == duration_s
    for one, two in itertools.pairwise(segments):
        assert one.end_s == two.start_s
        assert one.prediction.label != two.prediction.label
    if len(segments) > 1:
        assert all(s.end_s - s.start_s >= MIN_SEGMENT_S - 1e-9 for s in segments)
    for s in segments:
        start, stop = pooled.frames_of(s.start_s, s.end_s)
        np.testing.assert_allclose(s.prediction.scores, pooled.pool(start, stop).scores, atol=1e-12)


@given(LOGITS)
@QUICK
def test_weighted_segments_give_the_utterance(logits: np.ndarray) -> None:
    """Mean logits of the segments, weighted by length, are the utterance's: nothing is counted twice or left out."""
    pooled = Pooled(logits)
    segments = pooled.segments(pooled.smoothed(0.1), len(logits) * HOP_S)
    spans = np.array([pooled.frames_of(s.start_s, s.end_s) for s in segments])
    means = pooled.means(spans[:, 0], spans[:, 1])
    lengths = np.diff(spans, axis=1)
    np.testing.assert_allclose(softmax((means * lengths).sum(axis=0) / len(logits)), pooled.whole().scores, atol=1e-9)


def test_a_flicker_joins_the_neighbour_that_fits_better() -> None:
    logits = frames_of(("neutral", 2), ("angry", 0.2), ("sad", 2))
    logits[100:110, INDEX["sad"]] = 5.0  # the flicker says angry, and sad rather than neutral
    pooled = Pooled(logits)
    segments = pooled.segments(pooled.smoothed(0.02), 4.2)
    assert [(s.start_s, s.end_s, s.prediction.label) for s in segments] == [(0, 2, "neutral"), (2, 4.2, "sad")]


def test_a_flicker_inside_one_emotion_vanishes() -> None:
    pooled = Pooled(frames_of(("happy", 1), ("sad", 0.1), ("happy", 1)))
    assert [s.prediction.label for s in pooled.segments(pooled.smoothed(0.02), 2.1)] == ["happy"]


def test_a_clip_shorter_than_a_segment_is_one_segment() -> None:
    built = build(output(frames_of(("sad", 0.02))), duration_s=0.025, window_s=1.0)
    assert [(s.start_s, s.end_s, s.prediction.label) for s in built.segments] == [(0, 0.025, "sad")]


def test_excluded_classes_score_exactly_zero() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5_000, 9)).astype(np.float32)
    logits[:, [5, 8]] = EXCLUDED_LOGIT
    built = build(output(logits), 5_000 * HOP_S, 1.0)
    for scores in (built.prediction.scores, built.frames.scores, built.timeline.scores,
                   np.stack([s.prediction.scores for s in built.segments])):
        assert (scores[..., [5, 8]] == 0).all()
        np.testing.assert_allclose(scores.sum(axis=-1), 1, atol=1e-6)


def test_four_hours() -> None:
    rng = np.random.default_rng(1)
    n = n_frames(4 * 3600 * 16_000)
    logits = rng.normal(size=(n, 9)).astype(np.float32) + 8
    logits[:, 8] = EXCLUDED_LOGIT
    built = build(output(logits), 4 * 3600.0, 1.0)
    assert len(built.frames.scores) == len(built.timeline.scores) == n
    late = slice(n - 51, n)
    expected = softmax(logits[late].astype(np.float64).mean(axis=0))
    np.testing.assert_allclose(Pooled(logits).pool(n - 51, n).scores, expected, atol=1e-9)
    assert built.segments[-1].end_s == 4 * 3600.0
    assert min(s.end_s - s.start_s for s in built.segments) >= MIN_SEGMENT_S - 1e-9


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (0, 11), (3, 3), (5, 2)])
def test_impossible_intervals(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="frame intervals"):
        Pooled(np.zeros((10, 9), np.float32)).pool(start, stop)


@pytest.mark.parametrize(
    ("span_s", "frames"),
    [((0, 0.2), (0, 10)), ((0.05, 0.05), (2, 3)), ((-3, 99), (0, 10)), ((9, 12), (9, 10)), ((0.031, 0.089), (2, 4))],
)
def test_seconds_to_frames(span_s: tuple[float, float], frames: tuple[int, int]) -> None:
    assert Pooled(np.zeros((10, 9), np.float32)).frames_of(*span_s) == frames


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_model_that_gives_no_numbers_is_refused(value: float) -> None:
    logits = np.zeros((10, 9), np.float32)
    logits[4, 2] = value
    with pytest.raises(ModelError) as caught:
        build(output(logits), 0.2, 1.0)
    assert caught.value.code == "INFERENCE_FAILED"


def test_wrong_use_is_said() -> None:
    with pytest.raises(ValueError, match="logits want"):
        Pooled(np.zeros((0, 9), np.float32))
    with pytest.raises(ValueError, match="do not fit"):
        build(output(np.zeros((100, 9), np.float32)), 1.0, 1.0)
    with pytest.raises(ValueError, match="negative"):
        Pooled(np.zeros((10, 9), np.float32)).smoothed(-1)


def test_all_equal_logits_are_a_tie_that_does_not_break_anything() -> None:
    built = build(output(np.zeros((100, 9), np.float32)), 2.0, 1.0)
    np.testing.assert_allclose(built.prediction.scores, 1 / 9)
    assert [s.prediction.label for s in built.segments] == [KEYS[0]]


def test_only_numpy_is_needed() -> None:
    assert not {"torch", "matplotlib", "pydantic"} & set(vars(timeline))
