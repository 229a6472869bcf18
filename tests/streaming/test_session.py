"""The session's core: positions, parity with uploads, order, gaps, and what becomes of every sample."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from emotion_app import timeline
from emotion_app.engine import Engine
from emotion_app.errors import BusyError, ModelError, RequestError
from emotion_app.settings import Limits
from emotion_app.streaming.events import (
    AudioGapped,
    EmotionResult,
    ErrorEvent,
    FrameResult,
    SpeechStarted,
    SpeechStopped,
)
from emotion_app.streaming.protocol import Config, SessionUpdate, VadConfig
from emotion_app.types import HOP_SAMPLES, Waveform, n_frames
from emotion_app.vad import SileroVad, speech_segments
from tests.streaming.bench import Bench
from tests.streaming.sound import FAST, dialogue, from_pcm, pcm, pieces

CHUNKS = [17, 333, 3200, 64_000, "random"]


def finals(bench: Bench) -> list[EmotionResult]:
    return [e for e in bench.of(EmotionResult) if e.final]


def stream(
    network: SileroVad, engine: Engine, data: bytes, size: int | str = 3200, config: Config | None = None
) -> Bench:
    bench = Bench(network, engine, config)
    for piece in pieces(data, size):
        bench.push(piece)
    bench.end()
    return bench


def upload(engine: Engine, samples: np.ndarray) -> np.ndarray:
    output = engine.run([Waveform(samples)])[0]
    return timeline.build(output, len(samples) / 16_000, 1.0).prediction.scores


@pytest.mark.parametrize("size", CHUNKS)
def test_any_chunking_equals_an_upload_of_each_utterance(network: SileroVad, engine: Engine, size: int | str) -> None:
    sound = dialogue(2)
    bench = stream(network, engine, pcm(sound), size)
    found = finals(bench)
    assert [(f.start_sample, f.stop_sample) for f in found] == list(speech_segments(Waveform(sound), network))
    assert len(found) >= 2
    for final in found:
        want = upload(engine, sound[final.start_sample : final.stop_sample])
        np.testing.assert_allclose(list(final.scores.values()), want, atol=2e-6)
        assert abs(sum(final.scores.values()) - 1) < 1e-5


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_declared_rates_give_the_same_utterances_in_any_chunking(network: SileroVad, engine: Engine, rate: int) -> None:
    data = pcm(dialogue(2), rate)
    one, other = (stream(network, engine, data, size, Config(sample_rate=rate)) for size in (1 << 30, "random"))
    assert finals(one) and [f.model_dump(exclude={"latency_ms"}) for f in finals(one)] == [
        f.model_dump(exclude={"latency_ms"}) for f in finals(other)
    ]
    for bench in (one, other):
        assert bench.session.stats().received == round(len(data) / 2 * 16_000 / rate) == bench.session.position


def test_windows_equal_windows_of_the_file_and_frames_have_no_holes(network: SileroVad, engine: Engine) -> None:
    sound = dialogue(2)
    bench = stream(network, engine, pcm(sound))
    partial = [e for e in bench.of(EmotionResult) if not e.final]
    assert len(partial) > 6
    for result in partial:
        assert result.stop_sample - result.start_sample <= 48_000
        want = upload(engine, sound[result.start_sample : result.stop_sample])
        np.testing.assert_allclose(list(result.scores.values()), want, atol=2e-6)
    for number, final in enumerate(finals(bench), 1):
        rows = [f for f in bench.of(FrameResult) if f.utterance == number]
        assert rows[0].start_sample == final.start_sample
        assert all(a.stop_sample == b.start_sample for a, b in itertools.pairwise(rows))
        assert sum(len(f.scores) for f in rows) == n_frames(final.stop_sample - final.start_sample)
        assert all(
            f.stop_sample - f.start_sample == HOP_SAMPLES * len(f.scores) == HOP_SAMPLES * len(f.emotions) for f in rows
        )


def test_positions_only_grow(network: SileroVad, engine: Engine) -> None:
    bench = stream(network, engine, pcm(dialogue(3)))
    for kind in (EmotionResult, FrameResult, SpeechStopped, SpeechStarted):
        starts = [e.stop_sample if hasattr(e, "stop_sample") else e.start_sample for e in bench.of(kind)]
        assert starts == sorted(starts)
    spans = [(e.start_sample, e.stop_sample) for e in bench.of(SpeechStopped)]
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
    stats = bench.session.stats()
    assert stats.analysed == sum(b - a for a, b in spans) and stats.buffered == stats.declared_dropped == 0


def test_speech_is_told_after_its_confirmation_and_begins_before_it(network: SileroVad, engine: Engine) -> None:
    bench = Bench(network, engine)
    for piece in pieces(pcm(dialogue(1)), 3200):
        bench.push(piece)
        if started := bench.of(SpeechStarted):
            break
    assert started[0].start_sample < bench.session.position - 3200
    assert started[0].audio_start_ms == started[0].start_sample / 16


def test_answers_are_told_in_the_order_of_the_requests(network: SileroVad, engine: Engine) -> None:
    bench = Bench(network, engine, hold=True)
    for piece in pieces(pcm(dialogue(2)), 3200):
        bench.push(piece)
    bench.end()
    while bench.waiting:
        bench.run(len(bench.waiting) - 1)
    stops = [e.stop_sample for e in bench.of(EmotionResult)]
    assert stops == sorted(stops) and len(finals(bench)) >= 2 and bench.session.pending == 0


def test_late_and_replaced_windows_cost_no_sample_and_no_frame(network: SileroVad, engine: Engine) -> None:
    bench = Bench(network, engine, hold=True)
    for piece in pieces(pcm(dialogue(1)), 3200):
        bench.push(piece)
        while len(bench.waiting) > 1:
            bench.fail(BusyError("INFERENCE_TIMEOUT", limit_s=1) if len(bench.waiting) % 2 else BusyError("CANCELLED"))
    bench.end()
    while bench.waiting:
        bench.run()
    stats = bench.session.stats()
    assert stats.late + stats.replaced > 3 and stats.declared_dropped == 0
    (final,) = finals(bench)
    told = np.zeros(n_frames(final.stop_sample - final.start_sample), int)
    for rows in bench.of(FrameResult):
        first = (rows.start_sample - final.start_sample) // HOP_SAMPLES
        told[first : first + len(rows.scores)] += 1
    assert (told == 1).all()


def test_a_final_that_fails_is_declared(network: SileroVad, engine: Engine) -> None:
    bench = Bench(network, engine, hold=True)
    for piece in pieces(pcm(dialogue(1)), 3200):
        bench.push(piece)
    bench.end()
    while bench.waiting:
        bench.fail(ModelError("INFERENCE_FAILED", reason="test"))
    (gap,) = bench.of(AudioGapped)
    assert gap.reason == "not_analysed"
    assert bench.session.stats().declared_dropped == gap.stop_sample - gap.start_sample > 0
    assert {e.code for e in bench.of(ErrorEvent)} == {"INFERENCE_FAILED"}


def test_a_declared_gap_ends_the_utterance_and_moves_time_on(network: SileroVad, engine: Engine) -> None:
    data = pcm(dialogue(1))
    bench = Bench(network, engine)
    bench.push(data[:80_000])
    before = bench.session.position
    bench.act(bench.session.miss(16_000, "declared", bench.now))
    (gap,) = bench.of(AudioGapped)
    assert (gap.start_sample, gap.stop_sample) == (before, before + 16_000)
    assert [e.cause for e in bench.of(SpeechStopped)] == ["gap"] and len(finals(bench)) == 1
    bench.push(data[:80_000])
    bench.end()
    assert finals(bench)[-1].start_sample >= gap.stop_sample
    assert bench.session.stats().declared_dropped == 16_000


def test_positions_find_gaps_and_repeats(network: SileroVad, engine: Engine) -> None:
    sound = dialogue(1)
    data, bench = pcm(sound), Bench(network, engine)
    plain = stream(network, engine, data)
    for at in range(0, len(data), 6400):  # every message repeats half of the one before
        first = max(0, at - 3200)
        bench.push(data[first : at + 6400], first // 2)
    bench.end()
    assert [f.scores for f in finals(bench)] == [f.scores for f in finals(plain)]
    assert bench.session.stats().repeated_input == (len(data) // 6400) * 1600
    bench.push(data[:3200], len(data) // 2 + 777)
    assert bench.of(AudioGapped)[0].stop_sample - bench.of(AudioGapped)[0].start_sample == 777
    bench.push(data[:3200], 0)  # wholly known
    assert bench.session.received_input == len(data) // 2 + 777 + 1600


def test_too_fast_is_one_declared_gap(network: SileroVad, engine: Engine) -> None:
    bench = Bench(network, engine, limits=Limits())
    data = pcm(dialogue(1))[:3200]
    for i in range(1000):  # 100 s of sound in 25 s
        bench.act(bench.session.push(data, i * 0.025))
    bench.act(bench.session.push(data, 60.0))
    errors, gaps = bench.of(ErrorEvent), bench.of(AudioGapped)
    assert {e.code for e in errors} == {"RATE_LIMIT"} and len(errors) == len(gaps) <= 4
    stats = bench.session.stats()
    assert stats.declared_dropped == sum(g.stop_sample - g.start_sample for g in gaps)
    assert stats.received == 1001 * 1600 and stats.received - stats.declared_dropped <= (15 + 1.5 * 60) * 16_000


def test_real_time_is_never_too_fast(network: SileroVad, engine: Engine) -> None:
    bench = Bench(network, engine, limits=Limits())
    data = bytes(3200)
    for i in range(600):
        bench.act(bench.session.push(data, i * 0.1))
    assert not bench.of(ErrorEvent) and bench.session.stats().declared_dropped == 0


def test_longest_utterance_is_cut_without_losing_a_sample(network: SileroVad, engine: Engine) -> None:
    sound = dialogue(1)
    limits = FAST.model_copy(update={"stream_utterance_s": 2.0})
    bench = Bench(network, engine, Config(vad=VadConfig(enabled=False)), limits)
    for piece in pieces(pcm(sound), 3200):
        bench.push(piece)
    bench.end()
    found = finals(bench)
    assert all(f.stop_sample - f.start_sample <= 32_000 for f in found)
    assert [f.start_sample for f in found[1:]] == [f.stop_sample for f in found[:-1]]
    assert [e.cause for e in bench.of(SpeechStopped)][:-1] == ["max_length"] * (len(found) - 1)
    assert found[0].start_sample == 0 and found[-1].stop_sample == len(sound)


def test_without_the_detector_everything_is_analysed(network: SileroVad, engine: Engine) -> None:
    sound = dialogue(1)
    bench = stream(network, engine, pcm(sound), config=Config(vad=VadConfig(enabled=False)))
    (final,) = finals(bench)
    assert (final.start_sample, final.stop_sample) == (0, len(sound))
    np.testing.assert_allclose(list(final.scores.values()), upload(engine, sound), atol=2e-6)


def test_silence_asks_nothing_of_the_model(network: SileroVad) -> None:
    from tests.local_model import LocalModel

    model = LocalModel()
    bench = stream(network, Engine(model), bytes(16_000 * 2 * 20))
    assert model.batches == [] and bench.session.stats().silent == 320_000 and not bench.events


def test_updates_take_effect_and_bad_ones_change_nothing(network: SileroVad, engine: Engine) -> None:
    bench = Bench(network, engine)
    data = pcm(dialogue(1))
    bench.act(bench.session.update(SessionUpdate(type="session.update", window_s=1.0, hop_s=1.0, frames=False), 0.0))
    bench.push(data[:64_000])
    with pytest.raises(RequestError, match="sample_rate"):
        bench.session.update(SessionUpdate(type="session.update", sample_rate=8000), bench.now)
    for bad in (
        {"hop_s": 9.0},
        {"window_s": 0.01},
        {"vad": {"threshold": 7}},
        {"vad": {"nonsense": 1}},
        {"alerts": ["angry"]},
        {"alerts": ["angry >= 0.5 for 1 s"] * 17},
    ):
        before = bench.session.config
        with pytest.raises(RequestError):
            bench.session.update(SessionUpdate.model_validate({"type": "session.update", **bad}), bench.now)
        assert bench.session.config == before
    bench.push(data[64_000:])
    bench.end()
    assert not bench.of(FrameResult)
    partial = [e for e in bench.of(EmotionResult) if not e.final]
    assert partial and all(e.stop_sample - e.start_sample == 16_000 for e in partial)


def test_smoothed_scores_follow_the_windows(network: SileroVad, engine: Engine) -> None:
    data = pcm(dialogue(1))
    off = [e for e in stream(network, engine, data, config=Config(smoothing=0)).of(EmotionResult) if not e.final]
    on = [e for e in stream(network, engine, data, config=Config(smoothing=0.8)).of(EmotionResult) if not e.final]
    assert all(e.smoothed == e.scores for e in off)
    assert on[0].smoothed == on[0].scores and on[3].smoothed != on[3].scores and on[3].scores == off[3].scores
    assert all(e.emotion == max(e.smoothed, key=e.smoothed.get) for e in on)


def test_one_byte_at_a_time(network: SileroVad, engine: Engine) -> None:
    data = pcm(dialogue(1))[24_000:88_001]
    one, whole = stream(network, engine, data, 1), stream(network, engine, data, len(data))
    assert finals(one) and [f.scores for f in finals(one)] == [f.scores for f in finals(whole)]
    assert one.session.stats().received == 32_000  # the odd last byte is no sample


def test_sound_is_what_was_sent(network: SileroVad, engine: Engine) -> None:
    sound = dialogue(1)
    assert np.array_equal(from_pcm(pcm(sound)), sound)
