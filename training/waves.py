"""Sound for training: reading clips and disturbing them the way that the world does, in the waveform."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soxr
from scipy.signal import fftconvolve

from emotion_app.types import SAMPLE_RATE, Floats

# (codec, container, rate, lowest and highest bit rate): what voice messages, calls and web clips are made of
CODECS: tuple[tuple[str, str, int, int, int], ...] = (
    ("libopus", "ogg", 16_000, 8_000, 32_000),
    ("libopus", "ogg", 8_000, 6_000, 12_000),
    ("libmp3lame", "mp3", 16_000, 16_000, 64_000),
    ("libmp3lame", "mp3", 24_000, 32_000, 64_000),
    ("aac", "adts", 16_000, 16_000, 48_000),
    ("libopencore_amrnb", "amr", 8_000, 4_750, 12_200),
    ("pcm_mulaw", "wav", 8_000, 0, 0),
    ("adpcm_ima_wav", "wav", 16_000, 0, 0),
)


@dataclass(frozen=True)
class Rendition:
    """How a disturbed copy of every clip is made; each number is a probability or a range.

    Attributes:
        speed: lowest and highest factor of speed and pitch together.
        reverb: share of clips put in a synthetic room.
        codec: share of clips sent through a lossy codec.
        clip: share of clips overdriven.
    """

    speed: tuple[float, float] = (0.85, 1.15)
    reverb: float = 0.35
    codec: float = 0.5
    clip: float = 0.08


def read(path: str | Path | io.BytesIO) -> Floats:
    """Mono 16 kHz float32 of any file that PyAV can decode."""
    with av.open(path if isinstance(path, io.BytesIO) else str(path)) as container:
        stream = container.streams.audio[0]
        to_float = av.AudioResampler("fltp", "mono")
        blocks = [
            part.to_ndarray()[0] for frame in [*container.decode(stream), None] for part in to_float.resample(frame)
        ]
        rate = stream.rate
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    return soxr.resample(samples, rate, SAMPLE_RATE).astype(np.float32) if rate != SAMPLE_RATE else samples


def through_codec(samples: Floats, codec: str, container: str, rate: int, bit_rate: int) -> Floats:
    """``samples`` as they come back from a lossy codec: same length to within the codec's delay."""
    sound = soxr.resample(samples, SAMPLE_RATE, rate) if rate != SAMPLE_RATE else samples
    data = io.BytesIO()
    with av.open(data, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        if bit_rate:
            stream.bit_rate = bit_rate
        if codec == "libopus":
            stream.options = {"compression_level": "3"}  # five times faster than the default and hardly different
        frame = av.AudioFrame.from_ndarray((np.clip(sound, -1, 1) * 32767).astype(np.int16)[None], "s16", "mono")
        frame.rate = rate
        for part in [*av.AudioResampler(stream.format.name, "mono", rate).resample(frame), None]:
            out.mux(stream.encode(part))
    data.seek(0)
    return read(data)


def reverberate(samples: Floats, rng: np.random.Generator) -> Floats:
    """Convolved with decaying noise: T60 0.1 to 0.8 s, direct sound 0 to 15 dB above the room."""
    t60 = rng.uniform(0.1, 0.8)
    time = np.arange(int(t60 * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / t60)
    tail *= 10 ** (-rng.uniform(0, 15) / 20) / np.sqrt(np.square(tail).sum())
    tail[0] += 1.0
    return fftconvolve(samples, tail)[: len(samples)].astype(np.float32)


def disturb(samples: Floats, how: Rendition, rng: np.random.Generator) -> Floats:
    """One random copy: speed and pitch, room, level, overdrive, codec, in the order in which they happen to sound."""
    factor = rng.uniform(*how.speed)
    samples = soxr.resample(samples, SAMPLE_RATE * factor, SAMPLE_RATE).astype(np.float32)
    if rng.random() < how.reverb:
        samples = reverberate(samples, rng)
    peak = max(float(np.abs(samples).max(initial=0.0)), 1e-6)
    samples = samples / peak * 10 ** (-rng.uniform(0, 20) / 20)
    if rng.random() < how.clip:
        ceiling = np.quantile(np.abs(samples), rng.uniform(0.97, 0.999)) + 1e-6
        samples = np.clip(samples, -ceiling, ceiling)
    if rng.random() < how.codec:
        codec, container, rate, low, high = CODECS[rng.integers(len(CODECS))]
        samples = through_codec(samples, codec, container, rate, int(rng.uniform(low, high)))
    return samples
