"""Speech on and off: equal to Silero's own network, the same in any chunking, and where it should be."""

from __future__ import annotations

import itertools
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from emotion_app.types import SAMPLE_RATE, Waveform
from emotion_app.vad import (
    WINDOW,
    Endpointing,
    SileroVad,
    SpeechDetector,
    SpeechEnd,
    SpeechStart,
    VadState,
    speech_segments,
)
from tests.streaming.sound import dialogue


@pytest.fixture(scope="module")
def network() -> SileroVad:
    return SileroVad()


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return dialogue(4)


def test_probabilities_equal_those_of_the_wheel(network: SileroVad, sound: np.ndarray) -> None:
    folder = Path(next(iter(find_spec("silero_vad").submodule_search_locations)))
    theirs = torch.jit.load(str(folder / "data" / "silero_vad.jit"))
    state = VadState()
    with torch.inference_mode():
        for at in range(0, 600 * WINDOW, WINDOW):
            window = sound[at : at + WINDOW]
            want = theirs(torch.from_numpy(window.copy()), SAMPLE_RATE).item()
            assert network.probability(window, state) == pytest.approx(want, abs=2e-4)


def test_clips_between_pauses_are_found(network: SileroVad, sound: np.ndarray) -> None:
    found = speech_segments(Waveform(sound), network)
    assert len(found) >= 4 and all(a[1] <= b[0] for a, b in itertools.pairwise(found))
    assert found[0][0] > 0.5 * SAMPLE_RATE and found[-1][1] < len(sound) - 0.3 * SAMPLE_RATE


def test_silence_noise_and_music_are_no_speech(network: SileroVad) -> None:
    dice = np.random.default_rng(0)
    t = np.arange(5 * SAMPLE_RATE) / SAMPLE_RATE
    for sound in (np.zeros_like(t), 0.01 * dice.standard_normal(len(t)), 0.3 * np.sin(880 * np.pi * t)):
        assert speech_segments(Waveform(sound.astype(np.float32)), network) == ()


def test_hang_over_and_pad(network: SileroVad, sound: np.ndarray) -> None:
    n = len(sound) // WINDOW * WINDOW
    short = speech_segments(Waveform(sound[:n]), network, Endpointing(hang_over_s=0.2, pad_s=0.0))
    long = speech_segments(Waveform(sound[:n]), network, Endpointing(hang_over_s=2.0, pad_s=0.0))
    padded = speech_segments(Waveform(sound[:n]), network, Endpointing(hang_over_s=0.2, pad_s=0.1))
    assert len(long) == 1 < len(short)
    assert long[0] == (short[0][0], short[-1][1])
    assert padded[0] == (short[0][0] - 1600, short[0][1] + 1600)


def test_clicks_are_no_utterance(network: SileroVad, sound: np.ndarray) -> None:
    everything = replace(Endpointing(), min_speech_s=30.0)
    assert speech_segments(Waveform(sound), network, everything) == ()


def test_longest_utterance(network: SileroVad, sound: np.ndarray) -> None:
    found = speech_segments(Waveform(sound), network, Endpointing(max_s=2.0))
    assert all(stop - start <= 2 * SAMPLE_RATE for start, stop in found)
    assert any(a[1] == b[0] for a, b in itertools.pairwise(found))


def test_without_a_network_everything_is_speech() -> None:
    detector = SpeechDetector(None, Endpointing(min_speech_s=0.1))
    heard = [detector.push(np.zeros(WINDOW, np.float32)) for _ in range(10)]
    assert [type(h) for h in heard if h] == [SpeechStart] and detector.start == 0
    assert detector.finish(10 * WINDOW + 7) == SpeechEnd(0, 10 * WINDOW + 7, "end")


def test_a_fresh_start_forgets(network: SileroVad, sound: np.ndarray) -> None:
    detector = SpeechDetector(network, Endpointing())
    for at in range(0, 100 * WINDOW, WINDOW):
        detector.push(sound[at : at + WINDOW])
    detector.restart(1_000_000)
    assert detector.start is None and detector.keep_from == detector.position == 1_000_000
    with pytest.raises(ValueError, match="512"):
        detector.push(sound[:100])
