"""Where speech begins and ends: Silero VAD's network with endpointing, for live streams and for whole clips.

The network (its weights come in the ``silero-vad`` wheel) is computed here in numpy, one window at a time: a window
costs 0.13 ms instead of 1.4 ms through TorchScript on the same core, many sessions can share the weights from any
thread, and because every call has the same shape the result does not depend on how the sound was cut into chunks.
torch only opens the archive. The package itself is not imported: doing so sets torch to one thread for the process.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from emotion_app.errors import ModelError
from emotion_app.types import SAMPLE_RATE, Floats, Waveform

WINDOW = 512  # samples of one decision, 32 ms: what the network was trained on
_CONTEXT = 64  # samples of the window before that the network sees too
_STATE = 128  # width of the LSTM
_FFT, _STRIDE, _BINS = 256, 128, 129
_PACKAGE = "silero_vad"
_one_reader = threading.Lock()

Cause = Literal["silence", "end", "max_length", "gap"]


@dataclass(frozen=True)
class Endpointing:
    """When a stretch of speech begins and ends.

    Attributes:
        threshold: probability from which a window counts as speech.
        release: below it a window of running speech counts as silence (Silero's own hysteresis is 0.15).
        min_speech_s: less voiced sound than this is a click or a cough, not an utterance.
        hang_over_s: silence that ends an utterance; shorter pauses belong to it.
        pad_s: sound kept before the first and after the last voiced window.
        max_s: a longer utterance is ended by force.
    """

    threshold: float = 0.5
    release: float = 0.35
    min_speech_s: float = 0.2
    hang_over_s: float = 0.6
    pad_s: float = 0.2
    max_s: float = 60.0


@dataclass(frozen=True)
class SpeechStart:
    """Speech was recognised; it begins at sample ``start``, which lies in the past."""

    start: int


@dataclass(frozen=True)
class SpeechEnd:
    """An utterance is over: samples ``[start, stop)``."""

    start: int
    stop: int
    cause: Cause


@dataclass(eq=False)
class VadState:
    """What the network remembers of one stream."""

    context: Floats = field(default_factory=lambda: np.zeros(_CONTEXT, np.float32))
    hidden: Floats = field(default_factory=lambda: np.zeros(_STATE, np.float32))
    cell: Floats = field(default_factory=lambda: np.zeros(_STATE, np.float32))


class SileroVad:
    """Weights of Silero VAD (16 kHz), read once and shared; thread-safe.

    Raises:
        ModelError: MODEL_MISSING or MODEL_BROKEN when the wheel is not installed or not what it should be.
    """

    def __init__(self) -> None:
        state = _read_weights()
        basis = state["stft.forward_basis_buffer"][:, 0, :].T  # (256, 258)
        self._cos, self._sin = np.ascontiguousarray(basis[:, :_BINS]), np.ascontiguousarray(basis[:, _BINS:])
        # (out, in, 3) -> (3 * in, out): a convolution is one matrix product over three neighbouring columns
        self._layers = [
            (
                np.ascontiguousarray(state[f"encoder.{i}.reparam_conv.weight"].transpose(2, 1, 0)).reshape(-1, width),
                state[f"encoder.{i}.reparam_conv.bias"],
                stride,
            )
            for i, (width, stride) in enumerate(((128, 1), (64, 2), (64, 2), (128, 1)))
        ]
        gates = np.concatenate([state["decoder.rnn.weight_ih"], state["decoder.rnn.weight_hh"]], axis=1)
        self._gates = np.ascontiguousarray(gates.T)  # (256, 512)
        self._gate_bias = state["decoder.rnn.bias_ih"] + state["decoder.rnn.bias_hh"]
        self._out, self._out_bias = (
            state["decoder.decoder.2.weight"][0, :, 0],
            float(state["decoder.decoder.2.bias"][0]),
        )

    def probability(self, window: Floats, state: VadState) -> float:
        """Probability of speech in the next 512 samples of the stream behind ``state``, which moves on."""
        if window.shape != (WINDOW,):
            raise ValueError(f"a window has {WINDOW} samples, got {window.shape}")
        padded = np.empty(_CONTEXT + WINDOW + _CONTEXT, np.float32)
        padded[:_CONTEXT], padded[_CONTEXT:-_CONTEXT] = state.context, window
        padded[-_CONTEXT:] = padded[-_CONTEXT - 2 : -2 * _CONTEXT - 2 : -1]  # reflected without its last sample
        frames = np.stack([padded[i : i + _FFT] for i in range(0, len(padded) - _FFT + 1, _STRIDE)])  # (4, 256)
        columns = np.hypot(frames @ self._cos, frames @ self._sin)
        for weight, bias, stride in self._layers:
            columns = _convolve(columns, weight, bias, stride)
        gates = np.concatenate([columns[0], state.hidden]) @ self._gates + self._gate_bias
        opened = _sigmoid(gates)
        n = _STATE
        state.cell = opened[n : 2 * n] * state.cell + opened[:n] * np.tanh(gates[2 * n : 3 * n])
        state.hidden = opened[3 * n :] * np.tanh(state.cell)
        state.context = padded[WINDOW : WINDOW + _CONTEXT]
        return float(_sigmoid(np.maximum(state.hidden, 0) @ self._out + self._out_bias))


def shared_network() -> SileroVad:
    """The network of this process, read at the first call; thread-safe.

    Raises:
        ModelError: as ``SileroVad``.
    """
    with _one_reader:
        return _shared()


@cache
def _shared() -> SileroVad:
    return SileroVad()


class SpeechDetector:
    """Endpointing of one stream, window by window. Positions are sample numbers counted from ``position``.

    Args:
        network: shared weights; None takes everything for speech.
        rules: when speech begins and ends.
        position: number of the first sample that will come.

    Attributes:
        position: end of the last decided window.
        keep_from: samples before it belong to no utterance that is yet to end.
        start: first sample of the running utterance, None when there is none (yet).
        voiced_end: end of the last window with speech.
    """

    def __init__(self, network: SileroVad | None, rules: Endpointing, position: int = 0) -> None:
        self._network = network
        self.rules = rules
        self._state = VadState()
        self.position = position
        self._floor = position  # no utterance begins before it: the end of the one before, or a gap
        self._candidate: int | None = None
        self._voiced = 0
        self.voiced_end = position
        self._confirmed = False

    @property
    def start(self) -> int | None:
        """First sample of the running utterance; None while nothing was recognised."""
        return self._candidate if self._confirmed else None

    @property
    def keep_from(self) -> int:
        """The earliest sample that an utterance may still need."""
        if self._candidate is not None:
            return self._candidate
        return max(self._floor, self.position - round(self.rules.pad_s * SAMPLE_RATE))

    @property
    def hanging(self) -> bool:
        """True when the last decided window was silence (within an utterance: it hangs over)."""
        return self.voiced_end < self.position

    def push(self, window: Floats) -> SpeechStart | SpeechEnd | None:
        """Decide on the next ``WINDOW`` samples."""
        rules = self.rules
        probability = 1.0 if self._network is None else self._network.probability(window, self._state)
        before, self.position = self.position, self.position + WINDOW
        speech = probability >= (rules.threshold if self._candidate is None else min(rules.release, rules.threshold))
        if speech:
            return self._hear(before, probability)
        if self._candidate is None:
            return None
        silence = self.position - self.voiced_end
        if silence < rules.hang_over_s * SAMPLE_RATE:
            return self._limit()
        return self._end(min(self.voiced_end + round(rules.pad_s * SAMPLE_RATE), self.position), "silence")

    def finish(self, end: int, cause: Cause = "end") -> SpeechEnd | None:
        """End what is running at sample ``end`` (up to one window after ``position``) and start afresh from there."""
        over = self._end(min(self.voiced_end + round(self.rules.pad_s * SAMPLE_RATE), end), cause)
        self.restart(end)
        return over

    def restart(self, position: int) -> None:
        """Forget the stream so far: what comes next does not follow on it."""
        self._state = VadState()
        self.position = self._floor = self.voiced_end = position
        self._candidate, self._confirmed, self._voiced = None, False, 0

    def _hear(self, before: int, probability: float) -> SpeechStart | SpeechEnd | None:
        if self._candidate is None:
            self._candidate = max(self._floor, before - round(self.rules.pad_s * SAMPLE_RATE))
        self.voiced_end = self.position
        if probability >= self.rules.threshold:
            self._voiced += WINDOW
        if not self._confirmed and self._voiced >= self.rules.min_speech_s * SAMPLE_RATE:
            self._confirmed = True
            return SpeechStart(self._candidate)
        return self._limit()

    def _limit(self) -> SpeechEnd | None:
        if self._candidate is not None and self.position + WINDOW - self._candidate > self.rules.max_s * SAMPLE_RATE:
            return self._end(self.position, "max_length")
        return None

    def _end(self, stop: int, cause: Cause) -> SpeechEnd | None:
        start, confirmed = self._candidate, self._confirmed
        self._candidate, self._confirmed, self._voiced = None, False, 0
        if start is None or not confirmed:
            return None
        self._floor = stop
        return SpeechEnd(start, stop, cause)


def speech_segments(
    waveform: Waveform, network: SileroVad, rules: Endpointing | None = None
) -> tuple[tuple[int, int], ...]:
    """Speech in a whole clip as sample intervals ``[start, stop)``: what a live stream of the same sound would find.

    >>> speech_segments(Waveform(np.zeros(16_000, np.float32)), SileroVad())
    ()
    """
    detector = SpeechDetector(network, rules or Endpointing())
    n = len(waveform.samples)
    found = [detector.push(waveform.samples[i : i + WINDOW]) for i in range(0, n - WINDOW + 1, WINDOW)]
    return tuple((e.start, e.stop) for e in (*found, detector.finish(n)) if isinstance(e, SpeechEnd))


def _convolve(columns: Floats, weight: Floats, bias: Floats, stride: int) -> Floats:
    """1-d convolution of width 3 with one column of padding on each side, then ReLU: (T, in) -> (T', out)."""
    padded = np.zeros((len(columns) + 2, columns.shape[1]), np.float32)
    padded[1:-1] = columns
    at = range(0, len(columns), stride)
    taps = np.stack([padded[i : i + 3].ravel() for i in at])
    return np.maximum(taps @ weight + bias, 0)


def _sigmoid(x: Floats) -> Floats:
    return np.float32(0.5) + np.float32(0.5) * np.tanh(np.float32(0.5) * x)  # this form cannot overflow


def _read_weights() -> dict[str, Floats]:
    spec = find_spec(_PACKAGE)
    places = [Path(p) / "data" / "silero_vad.jit" for p in (spec.submodule_search_locations or [])] if spec else []
    path = next((p for p in places if p.is_file()), None)
    if path is None:
        raise ModelError("MODEL_MISSING", name="silero-vad")
    import torch

    try:
        network = torch.jit.load(str(path), map_location="cpu")
        return {
            key.removeprefix("_model."): value.numpy().copy()
            for key, value in network.state_dict().items()
            if key.startswith("_model.")
        }
    except (RuntimeError, ValueError, OSError) as error:
        raise ModelError("MODEL_BROKEN", name="silero-vad", reason=str(error)[:200]) from error
