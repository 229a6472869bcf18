"""Log-mel frames in plain torch, and the level of a clip: the input of the embedded model.

Whisper's front end (STFT 400/160, Hann, 80 Slaney mels of power) but not centred, so that ``n`` samples give
``(n - 400) // 160 + 1`` mel frames and, after the network's stride of 2, exactly ``types.n_frames(n)``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emotion_app.types import SAMPLE_RATE, Floats

Doubles = NDArray[np.float64]
N_FFT = 400  # 25 ms, Whisper's window
HOP = 160  # 10 ms: 100 mel frames a second
N_MELS = 80
TINY = 1e-10  # power below this counts as nothing: log10 stays finite
LEVEL = 1.2  # log10 of the mean mel power of the active frames after ``gain``: the middle of Whisper's range
ACTIVE_DB = 35.0  # a frame counts as active within this of the loudest 50 ms: pauses and room do not set the level
BLOCK_FRAMES = 6000  # mel frames computed at a time: 60 s, about 10 MB of spectrum


def mel_filters() -> Tensor:
    """(80, 201) triangular filters on Slaney's mel scale up to 8 kHz, each of unit area.

    Slaney (1998), Auditory Toolbox: linear below 1 kHz, then 27 steps for each factor of 6.4.
    """
    step, knee, ratio = 200 / 3, 1000.0, np.log(6.4) / 27
    top = knee / step + np.log(SAMPLE_RATE / 2 / knee) / ratio
    mels = np.linspace(0.0, top, N_MELS + 2)
    edges = np.where(mels < knee / step, mels * step, knee * np.exp(ratio * (mels - knee / step)))
    bins = np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE)
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    area = 2 / (edges[2:] - edges[:-2])
    return torch.from_numpy((np.maximum(0, np.minimum(rise, fall)) * area[:, None]).astype(np.float32))


class MelPower:
    """Mel power of a waveform; holds the window and the filters.

    >>> MelPower()(torch.zeros(16_000)).shape
    torch.Size([98, 80])
    """

    def __init__(self) -> None:
        self._window = torch.hann_window(N_FFT)
        self._filters = mel_filters().T.contiguous()  # (201, 80)

    def __call__(self, samples: Tensor) -> Tensor:
        """(n,) -> ((n - 400) // 160 + 1, 80) power, block by block so that memory stays flat."""
        return torch.cat(list(self._blocks(samples)))

    def energy(self, samples: Tensor) -> Tensor:
        """(n,) -> ((n - 400) // 160 + 1,) float64: the mean of each frame's power; 4 hours are 11 MB."""
        return torch.cat([power.double().mean(1) for power in self._blocks(samples)])

    def _blocks(self, samples: Tensor) -> Iterator[Tensor]:
        frames = samples.unfold(0, N_FFT, HOP)
        return (self._block(frames[at : at + BLOCK_FRAMES]) for at in range(0, len(frames), BLOCK_FRAMES))

    def _block(self, frames: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(frames * self._window)
        return (spectrum.real.square() + spectrum.imag.square()) @ self._filters


def active_frames(energy: Doubles) -> np.ndarray:
    """(M,) bool: frames whose smoothed energy (M,) is within ACTIVE_DB of the loudest 50 ms."""
    smooth = np.convolve(energy, np.full(5, 0.2), mode="same") if len(energy) >= 5 else energy
    return smooth >= smooth.max() * 10 ** (-ACTIVE_DB / 10)


def level_of(energy: Doubles) -> float:
    """log10 of the mean energy over the active frames; -10 for digital silence."""
    return float(np.log10(max(energy[active_frames(energy)].mean(), TINY)))


def level(power: Floats) -> float:
    """``level_of`` mel power (M, 80)."""
    return level_of(power.mean(axis=1, dtype=np.float64))
