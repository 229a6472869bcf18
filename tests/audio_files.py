"""Makes the audio files that the tests read: real ones through FFmpeg's encoders, hostile ones byte by byte."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]  # (channels, n), full scale at 1


def tone(seconds: float = 2.0, rate: int = 16_000, channels: int = 1, hz: float = 220.0, level: float = 0.4) -> Samples:
    """A wavering tone with an overtone, the same in every channel: (channels, n) float32."""
    t = np.arange(round(seconds * rate)) / rate
    wave = np.sin(2 * np.pi * hz * t) + 0.4 * np.sin(2 * np.pi * 3.1 * hz * t)
    wave *= level / 1.4 * (0.75 + 0.25 * np.sin(2 * np.pi * 2 * t))
    return np.tile(wave.astype(np.float32), (channels, 1))


def layout_of(channels: int) -> str:
    """FFmpeg's name for a layout of so many channels."""
    return {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}.get(
        channels, f"{channels}C"
    )


def encode(
    samples: Samples,
    rate: int,
    container: str,
    codec: str,
    *,
    tracks: int = 1,
    picture: bool = False,
    sound: bool = True,
    bit_rate: int | None = None,
    tags: dict[str, str] | None = None,
) -> bytes:
    """An encoded file, with a moving picture (and without sound) when asked."""
    buffer = io.BytesIO()
    layout = layout_of(len(samples))
    with av.open(buffer, "w", format=container) as out:
        out.metadata.update(tags or {})
        video = out.add_stream("mpeg4", rate=10) if picture else None
        trial = {"strict": "experimental"}  # FFmpeg's own Vorbis encoder
        count = tracks if sound else 0
        streams = [out.add_stream(codec, rate=rate, layout=layout, options=trial) for _ in range(count)]
        if video is not None:
            video.width = video.height = 32
            video.pix_fmt = "yuv420p"
            for i in range(10):
                frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), i * 20, np.uint8), format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 10)
                out.mux(video.encode(frame))
            out.mux(video.encode())
        for stream in streams:
            if bit_rate:
                stream.bit_rate = bit_rate
            out.mux(stream.encode(None) if not samples.size else _packets(stream, samples, rate, layout))
    return buffer.getvalue()


def _packets(stream: av.AudioStream, samples: Samples, rate: int, layout: str) -> list[av.Packet]:
    context = stream.codec_context
    if not context.is_open:  # muxing a picture has opened all
        context.open()
    resampler = av.AudioResampler(context.format, layout, rate, context.frame_size or 4096)
    packets = []
    for start in range(0, samples.shape[1], rate):
        part = np.ascontiguousarray(samples[:, start : start + rate].T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(part, format="flt", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        for piece in resampler.resample(frame):
            packets += stream.encode(piece)
    for piece in resampler.resample(None):
        packets += stream.encode(piece)
    return packets + stream.encode(None)


def wav(data: bytes, *, rate: int = 16_000, channels: int = 1, bits: int = 16, tag: int = 1,
        data_size: int | None = None, riff_size: int | None = None) -> bytes:  # fmt: skip
    """A WAV file with any header, true or not. ``tag``: 1 PCM, 3 float, 6 A-law, 7 mu-law."""
    frame = channels * bits // 8
    fields = struct.pack("<HHIIHH", tag, channels, rate, rate * frame & 0xFFFFFFFF, frame & 0xFFFF, bits)
    size = len(data) if data_size is None else data_size
    whole = 4 + 8 + len(fields) + 8 + len(data) if riff_size is None else riff_size
    return (b"RIFF" + struct.pack("<I", whole & 0xFFFFFFFF) + b"WAVEfmt " + struct.pack("<I", len(fields)) + fields
            + b"data" + struct.pack("<I", size & 0xFFFFFFFF) + data)  # fmt: skip


def pcm(samples: Samples, bits: int) -> bytes:
    """Interleaved little-endian PCM of 8 (unsigned), 16, 24 or 32 bits."""
    flat = samples.T.reshape(-1).astype(np.float64)
    if bits == 8:
        return np.clip(np.rint(flat * 128 + 128), 0, 255).astype(np.uint8).tobytes()
    half = 2.0 ** (bits - 1)
    whole = np.clip(np.rint(flat * half), -half, half - 1).astype("<i8")
    return whole.view(np.uint8).reshape(-1, 8)[:, : bits // 8].tobytes()


def forged_flac(total_samples: int, seconds: float = 0.5) -> bytes:
    """A short FLAC whose header claims ``total_samples`` (36 bits; 0 means unknown)."""
    data = bytearray(encode(tone(seconds), 16_000, "flac", "flac"))
    packed = int.from_bytes(data[18:26], "big")  # STREAMINFO: rate 20, channels 3, bits 5, total 36 bits
    data[18:26] = (packed >> 36 << 36 | total_samples & (1 << 36) - 1).to_bytes(8, "big")
    return bytes(data)


def silence(hours: float, codec: str) -> bytes:
    """Hours of silence in a small file: ``flac``, ``libopus`` (Ogg) or ``mp3``."""
    if codec == "mp3":  # every frame of silence is alike: encode a minute and repeat it
        minute = encode(np.zeros((1, 60 * 8_000), np.float32), 8_000, "mp3", codec, bit_rate=8_000)
        return minute * round(hours * 60)
    container, rate, options = {"flac": ("flac", 8_000, {"compression_level": "0"}),
                                "libopus": ("ogg", 48_000, {"frame_duration": "60"})}[codec]  # fmt: skip
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono", options=options)
        stream.codec_context.open()
        size = stream.codec_context.frame_size
        frame = av.AudioFrame.from_ndarray(np.zeros((1, size), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.time_base, payload = rate, Fraction(1, rate), b""
        for i in range(round(hours * 3600 * rate / size)):
            frame.pts = i * size
            if codec == "flac" or i < 5:  # Opus packets carry no number: one is as good as another
                packets = stream.encode(frame)
                payload = bytes(packets[-1]) if packets else payload
            else:
                packet = av.Packet(payload)
                packet.stream, packet.time_base = stream, Fraction(1, rate)
                packet.pts = packet.dts = frame.pts
                packet.duration = size
                packets = [packet]
            out.mux(packets)
    return buffer.getvalue()


def put(folder: Path, name: str, data: bytes) -> Path:
    """Write ``data`` to ``folder / name``."""
    path = folder / name
    path.write_bytes(data)
    return path
