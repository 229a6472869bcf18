"""Disturbing log-mel frames on the fly: pace, length, voice, room tone, noise, channel, masks.

Works on (M, 80) log10 mel power as the cache holds it. Noise is added as power, and the level is set anew at the end,
so that what the network sees is what ``melspec`` and the model would make of the disturbed sound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from emotion_app.labels import INDEX
from emotion_app.models.melspec import LEVEL, N_MELS, active_frames, level
from emotion_app.types import Floats

MAX_MELS = 798  # 8 s, the longest pass of the model
RATE = 100  # mel frames a second
UNKNOWN = INDEX["unknown"]


@dataclass(frozen=True)
class Augment:
    """Probabilities, unless a name says otherwise."""

    trim: float = 0.75
    tempo: float = 0.35
    crop: float = 0.5  # to 1.2 to 6 s
    short: float = 0.12  # to 0.3 to 1.5 s
    warp: float = 0.35
    style: float = 0.0  # some of another voice's mean and spread in each mel band
    eq: float = 0.6
    eq_db: float = 5.0  # standard deviation of the knots
    band: float = 0.2
    noise: float = 0.5
    snr_db: tuple[float, float] = (3.0, 35.0)
    masks: float = 0.6


class Augmenter:
    """Random copies of log-mel frames.

    Args:
        how: the probabilities.
        noise: gives the frames of a random non-speech clip.
        babble: gives the frames of a random clip with a voice.
        seed: of everything random here.
    """

    def __init__(self, how: Augment, noise: Callable[[], Floats], babble: Callable[[], Floats], seed: int) -> None:
        self._how, self._noise, self._babble = how, noise, babble
        self.rng = np.random.default_rng(seed)

    def __call__(self, mels: Floats, emotion: int) -> Floats:
        """One disturbed copy, at most 8 s, level set; the floor is added by the caller."""
        return self.in_place(self.cut(mels), emotion)

    def cut(self, mels: Floats) -> Floats:
        """The part of the disturbances that is about time: pauses at the ends, pace, length; at most 8 s."""
        if self._hit(self._how.trim):
            mels = self._trim(mels)
        if self._hit(self._how.tempo):
            mels = _stretch(mels, self.rng.uniform(0.85, 1.2))
        return self._crop(mels)

    def in_place(self, mels: Floats, emotion: int) -> Floats:
        """The part of the disturbances that leaves every frame where it is in time."""
        how, hit = self._how, self._hit
        if hit(how.warp):
            mels = _warp(mels, self.rng.uniform(0.9, 1.1))
        if emotion != UNKNOWN and hit(how.style):
            mels = _restyled(mels, self._babble(), np.float32(self.rng.beta(0.4, 0.4)))
        if hit(how.eq):
            knots = self.rng.normal(0, how.eq_db / 10, 7)
            mels = mels + np.interp(np.linspace(0, 6, N_MELS), np.arange(7), knots).astype(np.float32)
        if hit(how.noise):
            mels = self._add_noise(mels, emotion)
        if hit(how.band):
            mels = self._band(mels)
        return mels + np.float32(LEVEL - level(10**mels))

    def masks(self, mels: Floats) -> Floats:
        """SpecAugment: up to two stripes of mels and two of time take the mean value; after the floor."""
        if not self._hit(self._how.masks):
            return mels
        mels, fill = mels.copy(), mels.mean()
        for _ in range(self.rng.integers(1, 3)):
            width, n = self.rng.integers(1, 13), len(mels)
            at = self.rng.integers(0, N_MELS - width)
            mels[:, at : at + width] = fill
            span = int(self.rng.uniform(0, min(0.12 * n, 30)))
            at = self.rng.integers(0, n - span)
            mels[at : at + span] = fill
        return mels

    def _hit(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def _trim(self, mels: Floats) -> Floats:
        active = np.flatnonzero(active_frames((10**mels).mean(axis=1, dtype=np.float64)))
        margin = self.rng.integers(3, 25)
        return mels[max(0, active[0] - margin) : active[-1] + margin]

    def _crop(self, mels: Floats) -> Floats:
        dice, wanted = self.rng.random(), MAX_MELS
        if dice < self._how.short:
            wanted = int(self.rng.uniform(0.3, 1.5) * RATE)
        elif dice < self._how.short + self._how.crop:
            wanted = int(self.rng.uniform(1.2, 6.0) * RATE)
        if len(mels) <= wanted:
            return mels
        at = self.rng.integers(0, len(mels) - wanted + 1)
        return mels[at : at + wanted]

    def _band(self, mels: Floats) -> Floats:
        """Telephone or muffled microphone: nothing above 2.8 to 6 kHz, little below 100 to 400 Hz."""
        mels = mels.copy()
        mels[:, self.rng.integers(50, 74) :] -= np.float32(self.rng.uniform(3, 6))
        if self._hit(0.5):
            mels[:, : self.rng.integers(2, 10)] -= np.float32(self.rng.uniform(0.5, 3))
        return mels

    def _add_noise(self, mels: Floats, emotion: int) -> Floats:
        dice = self.rng.random()
        if dice < 0.4:
            noise = _to_length(self._noise(), len(mels), self.rng)
        elif dice < 0.55 and emotion != UNKNOWN:
            voices = [10 ** _to_length(self._babble(), len(mels), self.rng) for _ in range(self.rng.integers(2, 5))]
            noise = np.log10(np.mean(voices, axis=0))
        else:
            noise = self._coloured(len(mels))
        low, high = self._how.snr_db
        snr = np.float32(self.rng.uniform(low, high) / 10)
        return np.log10(10**mels + 10 ** (noise - snr))

    def _coloured(self, n: int) -> Floats:
        """Stationary noise: a random slope, chi-square bins like those of real noise."""
        slope = np.interp(np.arange(N_MELS), [0, 20, 50, 79], np.cumsum(self.rng.normal(-0.2, 0.5, 4)))
        bins = self.rng.gamma(2.0, 0.5, (n, N_MELS)) + 1e-3
        noise = np.log10(bins) + slope
        return (noise - np.log10(np.mean(10**noise)) + LEVEL).astype(np.float32)


def floored(mels: Floats, floor: float) -> Floats:
    """log10(power + 10**floor): what the network takes."""
    return np.log10(10**mels + np.float32(10**floor))


def _stretch(mels: Floats, factor: float) -> Floats:
    at = np.arange(0, len(mels) - 1, factor)
    low = at.astype(int)
    part = (at - low)[:, None].astype(np.float32)
    return mels[low] * (1 - part) + mels[low + 1] * part


def _warp(mels: Floats, factor: float) -> Floats:
    """Formants and pitch moved together along the mel axis."""
    at = np.clip(np.arange(N_MELS) * factor, 0, N_MELS - 1.001)
    low = at.astype(int)
    part = (at - low).astype(np.float32)
    return mels[:, low] * (1 - part) + mels[:, low + 1] * part


def _restyled(mels: Floats, other: Floats, share: np.float32) -> Floats:
    """Frequency-wise MixStyle (Zhou et al. 2021; Kim et al. 2021): mean and spread of each mel band ``share`` of the
    way to those of another clip, as a voice and a microphone would shift them; both over active frames."""
    mean, spread = _style(mels)
    theirs, width = _style(other)
    factor = np.clip(1 + share * (width / spread - 1), 0.5, 2.0)
    return (mels - mean) * factor + mean + share * (theirs - mean)


def _style(mels: Floats) -> tuple[Floats, Floats]:
    heard = mels[active_frames((10**mels).mean(axis=1, dtype=np.float64))]
    return heard.mean(axis=0), heard.std(axis=0) + np.float32(0.05)


def _to_length(mels: Floats, n: int, rng: np.random.Generator) -> Floats:
    if len(mels) < n:
        mels = np.tile(mels, (-(-n // len(mels)), 1))
    at = rng.integers(0, len(mels) - n + 1)
    return mels[at : at + n]
