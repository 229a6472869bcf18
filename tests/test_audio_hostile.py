"""Files made to harm: each has its exact outcome, in this process and in the decoder process alike."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from emotion_app.audio import Decoder, load
from emotion_app.errors import EmotionError
from emotion_app.settings import Limits
from tests.audio_files import encode, forged_flac, pcm, put, silence, tone, wav

LIMITS = Limits()
PCM = pcm(tone(2), 16)
FLOATS = tone(2)[0].astype("<f4")
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n/etc/passwd\n"
SCRIPT = b"ffconcat version 1.0\nfile /etc/hostname\n"


def spoiled(share: float) -> bytes:
    floats = FLOATS.copy()
    floats[: round(len(floats) * share)] = np.nan
    return wav(floats.tobytes(), bits=32, tag=3)


def half(container: str, codec: str) -> bytes:
    data = encode(tone(4, 48_000), 48_000, container, codec)
    return data[: len(data) // 2]


def hole(container: str, codec: str) -> bytes:
    data = encode(tone(4, 48_000), 48_000, container, codec)
    middle = len(data) // 2
    return data[:middle] + b"\xff" * 500 + data[middle + 500 :]


FILES: dict[str, tuple[Callable[[], bytes], str]] = {  # name: (maker, code of the error or notes)
    "empty": (lambda: b"", "EMPTY"),
    "one byte": (lambda: b"R", "UNDECODABLE"),
    "text": (lambda: b"This is no sound. " * 99, "UNDECODABLE"),
    "html": (lambda: b"<html><script>alert(1)</script></html>", "UNDECODABLE"),
    "zeros": (lambda: bytes(100_000), "UNDECODABLE"),
    "noise": (lambda: np.random.default_rng(0).bytes(100_000), "UNDECODABLE"),
    "pdf": (lambda: b"%PDF-1.7\n" + bytes(999), "UNDECODABLE"),
    "png": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(999), "UNDECODABLE"),
    "playlist of /etc/passwd": (lambda: PLAYLIST, "UNDECODABLE"),
    "concat script": (lambda: SCRIPT, "UNDECODABLE"),
    "svg": (lambda: b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "UNDECODABLE"),
    "wav header only": (lambda: wav(b""), "TOO_SHORT"),
    "wav 399 samples": (lambda: wav(PCM[:798]), "TOO_SHORT"),
    "wav 400 samples": (lambda: wav(PCM[:800]), "too_short"),
    "wav 1 Hz": (lambda: wav(PCM, rate=1), "BAD_FORMAT"),
    "wav 0 Hz": (lambda: wav(PCM, rate=0), "UNDECODABLE"),
    "wav 3999 Hz": (lambda: wav(PCM, rate=3_999), "BAD_FORMAT"),
    "wav 2 GHz": (lambda: wav(PCM, rate=2_000_000_000), "BAD_FORMAT"),
    "wav 4 GHz": (lambda: wav(PCM, rate=4_294_967_295), "UNDECODABLE"),
    "wav 1024 channels": (lambda: wav(bytes(2_048 * 500), channels=1_024), "UNDECODABLE"),
    "wav 33 channels": (lambda: wav(bytes(66 * 16_000), channels=33), "BAD_FORMAT"),
    "wav 32 channels": (lambda: wav(bytes(64 * 16_000), channels=32), "silent mixed_down"),
    "wav 0 channels": (lambda: wav(PCM, channels=0), "UNDECODABLE"),
    "wav 13 bits": (lambda: wav(PCM, bits=13), ""),
    "wav odd last byte": (lambda: wav(PCM[:-1]), ""),
    "wav unknown codec": (lambda: wav(PCM, tag=0x1234), "UNDECODABLE"),
    "wav size 0": (lambda: wav(PCM, riff_size=0, data_size=0), ""),
    "wav through a pipe": (lambda: wav(PCM, riff_size=0xFFFFFFFF, data_size=0xFFFFFFFF), ""),
    "wav cut": (lambda: wav(PCM)[:40_000], "truncated"),
    "wav cut in its header": (lambda: wav(PCM)[:30], "UNDECODABLE"),
    "wav all NaN": (lambda: spoiled(1), "NOT_FINITE"),
    "wav 1 % NaN": (lambda: spoiled(0.01), "NOT_FINITE"),
    "wav few NaN": (lambda: spoiled(0.0005), "non_finite"),
    "wav huge floats": (lambda: wav((FLOATS * 1e37).tobytes(), bits=32, tag=3), "NOT_FINITE"),
    "wav floats of integers": (lambda: wav((FLOATS * 32_768).tobytes(), bits=32, tag=3), "scaled"),
    "wav doubles beyond float": (lambda: wav((FLOATS.astype(float) * 1e300).tobytes(), bits=64, tag=3), "NOT_FINITE"),
    "flac says 10 h": (lambda: forged_flac(36_000 * 16_000, 2), "truncated"),
    "flac says 2^36": (lambda: forged_flac(2**36 - 1, 2), "truncated"),
    "flac says nothing": (lambda: forged_flac(0, 2), ""),
    "flac says 1 sample": (lambda: forged_flac(1, 2), ""),
    "flac cut": (lambda: half("flac", "flac"), "truncated"),
    "flac hole": (lambda: hole("flac", "flac"), "truncated"),
    "mp3 cut": (lambda: half("mp3", "mp3"), "truncated"),
    "ogg cut": (lambda: half("ogg", "libopus"), "truncated"),
    "ogg hole": (lambda: hole("ogg", "libopus"), "truncated"),
    "webm cut": (lambda: half("webm", "libopus"), "truncated"),
    "m4a without its index": (lambda: half("ipod", "aac"), "UNDECODABLE"),
    "mp4 without sound": (lambda: encode(tone(), 16_000, "mp4", "aac", picture=True, sound=False), "NO_AUDIO"),
    "aac 8 channels": (lambda: encode(tone(2, 48_000, 8), 48_000, "ipod", "aac"), "mixed_down"),
    "wavpack 12 channels": (lambda: encode(tone(2, 48_000, 12), 48_000, "matroska", "wavpack"), "mixed_down"),
}


def outcome(work: Callable[[], object]) -> str:
    try:
        wave = work()
    except EmotionError as error:
        assert error.text("en") and error.text("zh") and "/etc" not in error.text("en")
        return error.code
    assert np.isfinite(wave.samples).all() and wave.samples.dtype == np.float32 and len(wave.samples) >= 400
    return " ".join(note.code for note in wave.notes)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with_own_end = Decoder(LIMITS)
    yield with_own_end
    with_own_end.close()


@pytest.mark.parametrize("name", FILES)
def test_hostile_file(name: str, decoder: Decoder, tmp_path: Path) -> None:
    maker, expected = FILES[name]
    path = put(tmp_path, "speech.wav", maker())
    started = time.process_time()
    assert outcome(lambda: load(path, limits=LIMITS)) == expected
    assert time.process_time() - started < 2
    assert outcome(lambda: decoder.load(path)) == expected


@pytest.mark.parametrize("codec", ["flac", "libopus", "mp3"])
def test_bombs_of_silence_are_refused_in_bounded_memory(codec: str, decoder: Decoder, tmp_path: Path) -> None:
    path = put(tmp_path, "bomb", silence(0.5, codec))
    started = time.process_time()
    assert outcome(lambda: load(path, limits=LIMITS, max_s=600)) == "TOO_LONG"
    assert time.process_time() - started < 4  # 600 s of sound are decoded before the cap
    assert outcome(lambda: decoder.load(path)) == "TOO_LONG"
    assert _peak_mb(decoder) < LIMITS.decode_memory_mb


def test_container_and_codec_are_named() -> None:
    for name, words in (("pdf", "PDF"), ("text", "text"), ("wav 0 channels", "pcm_s16le")):
        with pytest.raises(EmotionError, match=words):
            load(FILES[name][0](), limits=LIMITS)


@pytest.mark.parametrize("make", ["fifo", "device", "directory", "missing", "nul", "long", "dangling", "loop"])
def test_only_regular_files_are_opened(make: str, decoder: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    expected = "NO_SUCH_FILE"
    if make == "fifo":
        os.mkfifo(path)
        expected = "NOT_A_FILE"
    elif make == "device":
        path, expected = Path("/dev/zero"), "NOT_A_FILE"
    elif make == "directory":
        path.mkdir()
        expected = "NOT_A_FILE"
    elif make == "nul":
        path = Path("a\0b.wav")
    elif make == "long":
        path = tmp_path / ("x" * 300)
    elif make in ("dangling", "loop"):
        path.symlink_to(tmp_path / ("nowhere" if make == "dangling" else "x.wav"))
    assert outcome(lambda: load(path, limits=LIMITS)) == expected
    assert outcome(lambda: decoder.load(path)) == expected


@pytest.mark.parametrize("seed", range(2))
def test_mutated_files_end_in_a_listed_way(seed: int, decoder: Decoder, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    kinds = (("wav", "pcm_s16le"), ("flac", "flac"), ("mp3", "mp3"), ("ogg", "libopus"), ("ipod", "aac"),
             ("webm", "libopus"))  # fmt: skip
    seeds = [encode(tone(0.6, 48_000, 2), 48_000, *kind) for kind in kinds]
    for data in seeds * 8:
        bad = bytearray(data)
        for at in random.integers(0, min(len(bad), 2_000), 12):
            bad[at] = random.integers(256)
        result = outcome(lambda bad=bad: decoder.load(put(tmp_path, "m", bytes(bad))))
        assert result.isupper() is False or result in {
            "UNDECODABLE", "NO_AUDIO", "BAD_FORMAT", "TOO_SHORT", "TOO_LONG", "NOT_FINITE", "EMPTY", "DECODE_LIMIT"}


def _peak_mb(decoder: Decoder) -> float:
    (worker,) = decoder._all
    status = Path(f"/proc/{worker._process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e3
