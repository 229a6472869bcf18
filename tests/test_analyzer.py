"""The one road: every kind of source, every option, on the embedded model."""

import threading

import numpy as np
import pytest

from emotion_app import analyze
from emotion_app.analyzer import Analyzer, Options, Progress
from emotion_app.errors import AudioError, BusyError, ModelError, RequestError
from emotion_app.settings import Limits
from emotion_app.types import SAMPLE_RATE, n_frames


@pytest.fixture
def analyzer(settings):
    made = Analyzer(settings)
    yield made
    made.close()


def test_same_numbers_whatever_the_source(analyzer, clips) -> None:
    by_path = analyzer.analyze(clips[0])
    samples = by_path.waveform.samples
    for source in (clips[0].read_bytes(), str(clips[0]), samples, (SAMPLE_RATE, samples), by_path.waveform):
        np.testing.assert_allclose(analyzer.analyze(source).prediction.scores, by_path.prediction.scores, atol=1e-4)
    isolated = analyzer.analyze(clips[0], isolated=True)
    np.testing.assert_array_equal(isolated.prediction.scores, by_path.prediction.scores)


def test_utterance(analyzer, clips) -> None:
    result = analyzer.analyze(clips[0])
    assert abs(result.prediction.scores.sum() - 1) < 1e-6
    assert result.frames is result.timeline is result.embedding is result.frame_embeddings is None
    assert result.segments == () and result.model.embedded and result.created.tzinfo is not None


def test_frame_mode_pools_back_to_the_utterance(analyzer, clips) -> None:
    result = analyzer.analyze(clips[0], Options("frame", "frame"))
    frames = n_frames(len(result.waveform.samples))
    assert result.frames.scores.shape == result.timeline.scores.shape == (frames, 9)
    assert result.frames.hop_s == 0.02 and result.timeline.window_s == 1.0
    assert result.segments[0].start_s == 0
    assert result.segments[-1].end_s == pytest.approx(result.waveform.duration_s)
    assert result.embedding.shape == (result.model.dim,) and result.frame_embeddings.shape == (frames, result.model.dim)
    np.testing.assert_allclose(result.frame_embeddings.mean(0), result.embedding, atol=1e-4)
    logits = np.log(np.maximum(result.frames.scores.astype(np.float64), 1e-30))
    centred = (logits - logits.mean(1, keepdims=True)).mean(0)  # softmax of the mean of the frame logits
    again = np.exp(centred) / np.exp(centred).sum()
    np.testing.assert_allclose(again, result.prediction.scores, atol=1e-5)


def test_steps_are_told_in_order(analyzer, clips) -> None:
    seen: list[Progress] = []
    analyzer.analyze(clips[0], progress=seen.append)
    ended = [p.step for p in seen if p.fraction == 1.0 and (p.seconds or p.detail)]
    assert ended[0] == "decode" and ended[-1] == "infer"
    assert {"decode", "queue", "infer"} <= {p.step for p in seen}


def test_repeating_costs_nothing(analyzer, clips) -> None:
    first = analyzer.analyze(clips[0])
    again = analyzer.analyze(clips[0], Options("frame"))
    assert analyzer.cache.hits == 1 and again.timing.infer_s == 0
    np.testing.assert_array_equal(first.prediction.scores, again.prediction.scores)


def test_window_smooths(analyzer, clips) -> None:
    rough, smooth = (analyzer.analyze(clips[0], Options("frame", window_s=w)).timeline.scores for w in (0.1, 3.0))
    assert np.abs(np.diff(smooth, axis=0)).sum() < np.abs(np.diff(rough, axis=0)).sum()


@pytest.mark.parametrize(
    "options",
    [
        {"granularity": "word"},
        {"embedding": "yes"},
        {"precision": "fp8"},
        {"window_s": 0.0},
        {"window_s": float("nan")},
    ],
)
def test_bad_options(options) -> None:
    with pytest.raises(RequestError) as caught:
        Options(**options)
    assert caught.value.code == "BAD_OPTION"


def test_clip_limits(settings) -> None:
    analyzer = Analyzer(settings.model_copy(update={"limits": Limits(batch_clip_s=2)}))
    with pytest.raises(AudioError) as caught:
        analyzer.analyze((SAMPLE_RATE, np.zeros(3 * SAMPLE_RATE, np.float32)))
    assert caught.value.code == "TOO_LONG"
    analyzer.close()


def test_cancel(analyzer, clips) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(BusyError) as caught:
        analyzer.analyze(clips[0], cancel=cancel)
    assert caught.value.code == "CANCELLED"


def test_unknown_and_missing_models(analyzer, clips) -> None:
    with pytest.raises(ModelError) as caught:
        analyzer.analyze(clips[0], Options(model="no_such_model"))
    assert caught.value.code == "MODEL_UNKNOWN"
    with pytest.raises(ModelError) as caught:
        analyzer.analyze(clips[0], Options(model="emotion2vec_plus_large"))
    assert caught.value.code in ("MODEL_MISSING", "MODEL_OFFLINE")
    assert analyzer.analyze(clips[0])  # and the process lives on


def test_auto_answers_and_says_which_model(analyzer, clips) -> None:
    result = analyzer.analyze(clips[0], Options(model="auto"))
    assert result.model.embedded and "embedded_model" in [n.code for n in result.notes]
    assert analyzer.status("auto").state == "ready" and analyzer.status("auto").note.code == "embedded_model"
    assert analyzer.status("emotion2vec_plus_large").state in ("not_loaded", "failed")


def test_many_threads_load_once_and_agree(analyzer, clips) -> None:
    scores: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: scores.append(analyzer.analyze(clips[0]).prediction.scores)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(scores) == 8 and all(np.abs(s - scores[0]).max() < 1e-6 for s in scores)
    assert len(analyzer.pool.loaded()) == 1


def test_library_call(settings, clips) -> None:
    result = analyze(clips[0], "frame", embedding=True, settings=settings)
    assert result.embedding is not None and result.timeline is not None
