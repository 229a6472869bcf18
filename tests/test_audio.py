"""audio.load: every format, exact lengths, notes, arrays, names."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotion_app.audio import display_name, load, write_wav
from emotion_app.errors import AudioError
from emotion_app.settings import Limits
from emotion_app.types import SAMPLE_RATE, Waveform
from tests.audio_files import encode, pcm, put, tone, wav

LIMITS = Limits()

LOSSLESS = [  # container, codec, rate, channels, tolerance: one step (FFmpeg's WavPack encoder writes 8 bits)
    ("wav", "pcm_s16le", 16_000, 1, 3e-5), ("wav", "pcm_s24le", 16_000, 2, 1e-6), ("wav", "pcm_s32le", 16_000, 1, 1e-6),
    ("wav", "pcm_f32le", 16_000, 3, 1e-6), ("wav", "pcm_f64le", 16_000, 1, 1e-6), ("w64", "pcm_s16le", 16_000, 1, 3e-5),
    ("flac", "flac", 16_000, 1, 3e-5), ("flac", "flac", 16_000, 8, 3e-5), ("wv", "wavpack", 16_000, 2, 5e-3),
    ("ipod", "alac", 16_000, 1, 3e-5), ("aiff", "pcm_s16be", 16_000, 2, 3e-5), ("caf", "pcm_s16le", 16_000, 1, 3e-5),
    ("au", "pcm_s16be", 16_000, 1, 3e-5), ("matroska", "flac", 16_000, 1, 3e-5), ("mov", "pcm_s16le", 16_000, 1, 3e-5),
]  # fmt: skip
LOSSY = [  # container, codec, rate, channels, lowest correlation with the original
    ("mp3", "mp3", 44_100, 2, 0.99), ("mp3", "mp3", 16_000, 1, 0.99), ("ipod", "aac", 44_100, 1, 0.99),
    ("ipod", "aac", 48_000, 8, 0.98), ("adts", "aac", 44_100, 2, 0.99), ("ogg", "libopus", 48_000, 1, 0.98),
    ("ogg", "libopus", 48_000, 8, 0.98), ("ogg", "vorbis", 44_100, 2, 0.9), ("webm", "libopus", 48_000, 2, 0.98),
    ("amr", "libopencore_amrnb", 8_000, 1, 0.9), ("3gp", "libopencore_amrnb", 8_000, 1, 0.9),
    ("asf", "wmav2", 44_100, 2, 0.95), ("asf", "wmav1", 44_100, 2, 0.95), ("wav", "pcm_mulaw", 8_000, 1, 0.99),
    ("wav", "pcm_alaw", 8_000, 1, 0.99), ("wav", "pcm_u8", 16_000, 1, 0.99), ("wav", "adpcm_ima_wav", 16_000, 1, 0.98),
    ("avi", "mp3", 44_100, 2, 0.98), ("mpegts", "aac", 44_100, 2, 0.98), ("flv", "aac", 44_100, 2, 0.98),
    ("ac3", "ac3", 48_000, 2, 0.98), ("mp2", "mp2", 44_100, 1, 0.98),
]  # fmt: skip


def read(data: object, **options: object) -> Waveform:
    return load(data, limits=LIMITS, **options)


def codes(wave: Waveform) -> list[str]:
    return [note.code for note in wave.notes]


def best_match(wave: np.ndarray, reference: np.ndarray) -> float:
    """Correlation at the best shift: codecs begin with up to 0.13 s of padding."""
    size = 1 << (len(wave) + len(reference)).bit_length()
    cross = np.fft.irfft(np.fft.rfft(wave, size) * np.conj(np.fft.rfft(reference, size)))
    return float(cross.max() / (np.linalg.norm(wave) * np.linalg.norm(reference)))


@pytest.mark.parametrize(("container", "codec", "rate", "channels", "tolerance"), LOSSLESS)
def test_lossless_files_equal_the_array(container: str, codec: str, rate: int, channels: int, tolerance: float) -> None:
    samples = tone(2.0, rate, channels)
    wave = read(encode(samples, rate, container, codec))
    assert len(wave.samples) == samples.shape[1]
    np.testing.assert_allclose(wave.samples, samples[0], atol=tolerance)
    assert codes(wave) == (["mixed_down"] if channels > 1 else [])
    assert wave.origin.codec and wave.origin.sample_rate == rate and wave.origin.channels == channels


@pytest.mark.parametrize(("container", "codec", "rate", "channels", "correlation"), LOSSY)
def test_lossy_files_sound_like_the_array(
    container: str, codec: str, rate: int, channels: int, correlation: float
) -> None:
    samples = tone(2.0, rate, channels)
    bit_rate = 64_000 if codec.startswith("wma") else None
    wave = read(encode(samples, rate, container, codec, bit_rate=bit_rate))
    assert abs(wave.duration_s - 2.0) < 0.13
    assert best_match(wave.samples, read((rate, samples)).samples) > correlation
    assert set(codes(wave)) <= {"mixed_down", "narrow_band"}


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("codec", ["pcm_s24le", "pcm_f32le"])
def test_files_and_arrays_resample_alike(rate: int, codec: str) -> None:
    samples = tone(1.3, rate, 2)
    wave = read(encode(samples, rate, "wav", codec))
    assert len(wave.samples) == round(samples.shape[1] * SAMPLE_RATE / rate)
    np.testing.assert_allclose(wave.samples, read((rate, samples)).samples, atol=1e-5)


@settings(max_examples=120, deadline=None)
@given(
    rate=st.integers(4_000, 384_000),
    seconds=st.floats(0.03, 1.2),
    channels=st.integers(1, 32),
    kind=st.sampled_from(["float32", "float64", "int16", "int32", "uint8", "float16"]),
    seed=st.integers(0, 2**32 - 1),
    rows=st.booleans(),
)
def test_any_array_becomes_finite_mono_16k_of_exact_length(
    rate: int, seconds: float, channels: int, kind: str, seed: int, rows: bool
) -> None:
    random = np.random.default_rng(seed)
    n = max(int(rate * seconds), 120)
    noise = random.uniform(-1, 1, (channels, n))
    dtype = np.dtype(kind)
    if dtype.kind != "f":
        info = np.iinfo(dtype)
        noise = np.clip((noise + (dtype.kind == "u")) * 2 ** (8 * dtype.itemsize - 1), info.min, info.max)
    array = noise.astype(dtype) if rows else noise.astype(dtype).T
    wave = read((rate, array[0] if rows and channels == 1 else array))
    assert wave.samples.dtype == np.float32 and wave.samples.ndim == 1
    assert np.isfinite(wave.samples).all()
    assert abs(len(wave.samples) - round(n * SAMPLE_RATE / rate)) <= 1


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_hand_made_wav_of_every_width(bits: int) -> None:
    samples = tone(1.0, channels=2)
    wave = read(wav(pcm(samples, bits), channels=2, bits=bits))
    np.testing.assert_allclose(wave.samples, samples[0], atol=2.0 ** (1 - bits) + 1e-7)


@pytest.mark.parametrize(("array", "expected"), [
    (np.full(16_000, 16_384, np.int16), 0.5), (np.full(16_000, 2**30, np.int32), 0.5),
    (np.full(16_000, 192, np.uint8), 0.5), (np.full((16_000, 2), 0.5), 0.5),
    (np.full((2, 16_000), 0.5, np.float32), 0.5),
    (np.full(16_000, 16_384, np.int16)[::-1], 0.5), (np.full((16_000, 2), 0.5, order="F"), 0.5),
    (np.stack([np.full(16_000, 0.5), np.zeros(16_000)]), 0.25),
])  # fmt: skip
def test_array_scale_and_orientation(array: np.ndarray, expected: float) -> None:
    before = array.copy()
    wave = read(array)
    assert wave.samples.shape == (16_000,)
    np.testing.assert_allclose(wave.samples, expected, atol=1e-6)
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize(("source", "code"), [
    (np.zeros(0, np.float32), "EMPTY"), (np.zeros((40, 40)), "BAD_ARRAY"), (np.zeros((2, 2, 2)), "BAD_ARRAY"),
    (np.zeros(16_000, np.int64), "BAD_ARRAY"), (np.zeros(16_000, complex), "BAD_ARRAY"),
    (np.float32(1), "BAD_ARRAY"),
    (np.zeros(16_000, bool), "BAD_ARRAY"), (np.array(["a"] * 500), "BAD_ARRAY"),
    (np.zeros(399, np.float32), "TOO_SHORT"),
    ((44_100.5, np.zeros(16_000)), "BAD_ARRAY"), ((True, np.zeros(16_000)), "BAD_ARRAY"),
    ((0, np.zeros(16_000)), "BAD_FORMAT"),
    ((-1, np.zeros(16_000)), "BAD_FORMAT"), ((2_000_000_000, np.zeros(16_000)), "BAD_FORMAT"), ((1, 2, 3), "BAD_ARRAY"),
    ((float("nan"), np.zeros(16_000)), "BAD_ARRAY"), (np.full(16_000, np.nan), "NOT_FINITE"), (None, "BAD_ARRAY"),
    (np.array([np.inf] * 8 + [0.1] * 792), "NOT_FINITE"), (3.5, "BAD_ARRAY"), ({"a": 1}, "BAD_ARRAY"),
    (io.StringIO("text"), "BAD_ARRAY"), (b"", "EMPTY"), (io.BytesIO(), "EMPTY"),
])  # fmt: skip
def test_what_is_no_sound_is_refused_by_code(source: object, code: str) -> None:
    with pytest.raises(AudioError) as caught:
        read(source)
    assert caught.value.code == code
    assert caught.value.text("zh")


def test_a_clip_at_the_cap_passes_and_one_sample_more_does_not() -> None:
    clip = np.zeros(2 * SAMPLE_RATE + 1, np.int16)
    assert read(clip[:-1], max_s=2).duration_s == 2
    for source in (clip, wav(clip.tobytes())):
        with pytest.raises(AudioError) as caught:
            read(source, max_s=2)
        assert caught.value.code == "TOO_LONG"


@pytest.mark.parametrize(("source", "expected"), [
    (tone(0.5)[0], {"too_short"}), (tone(31)[0], {"long"}), ((8_000, tone(2, 8_000)[0]), {"narrow_band"}),
    (np.zeros(32_000, np.int16), {"silent"}), (np.full(32_000, 0.3, np.float32), {"silent"}),
    (tone(2, level=0.01)[0], {"quiet"}), (tone(2)[0], set()), (np.clip(tone(2, level=3)[0], -1, 1), {"clipped"}),
    (tone(2, level=3)[0], {"scaled"}), (tone(2, channels=2), {"mixed_down"}),
    (tone(2, channels=2) * np.array([[1], [-1]], np.float32), {"channels_cancel"}),
])  # fmt: skip
def test_notes(source: object, expected: set[str]) -> None:
    wave = read(source)
    assert set(codes(wave)) == expected
    assert all(note.text("zh") and note.text("en") for note in wave.notes)


def test_scaled_floats_keep_their_shape() -> None:
    samples = tone(2)
    wave = read((samples[0] * 32_768).astype(np.float32))
    np.testing.assert_allclose(wave.samples, samples[0] / np.abs(samples).max(), atol=1e-6)


def test_few_bad_samples_become_zero_with_a_note() -> None:
    samples = tone(2)[0].copy()
    samples[[5, 77]] = [np.nan, 1e30]
    wave = read(samples)
    assert codes(wave) == ["non_finite"] and wave.notes[0].facts == {"count": 2}
    assert wave.samples[5] == wave.samples[77] == 0
    assert np.isnan(samples[5])


@pytest.mark.parametrize("as_file", [False, True])
def test_cancelling_stereo_uses_the_loudest_channel(as_file: bool) -> None:
    one = tone(2)[0]
    stereo = np.stack([one * 0.9, -one])
    wave = read(wav(pcm(stereo, 24), channels=2, bits=24) if as_file else stereo)
    assert codes(wave) == ["channels_cancel"]
    np.testing.assert_allclose(wave.samples, -one, atol=1e-5)


def test_one_channel_of_many_does_not_count_as_cancelling() -> None:
    many = np.zeros((32, 32_000), np.float32)
    many[7] = tone(2)[0]
    assert "channels_cancel" not in codes(read(many))


def test_video_and_tracks() -> None:
    assert "video" in codes(read(encode(tone(), 16_000, "mp4", "aac", picture=True)))
    assert "video" in codes(read(encode(tone(), 48_000, "matroska", "libopus", picture=True)))
    assert codes(read(encode(tone(), 16_000, "matroska", "flac", tracks=2))) == ["several_tracks"]
    with pytest.raises(AudioError) as caught:
        read(encode(tone(), 16_000, "mp4", "aac", picture=True, sound=False))
    assert caught.value.code == "NO_AUDIO" and "mp4" in str(caught.value)


def test_every_kind_of_source_gives_the_same(tmp_path: Path) -> None:
    data = encode(tone(channels=2), 16_000, "flac", "flac")
    path = put(tmp_path, "speech.flac", data)
    expected = read(path)
    assert expected.name == "speech.flac" and expected.origin.n_bytes == len(data)
    half_read = io.BytesIO(data)
    half_read.seek(1_000)
    pipe = io.BufferedReader(_Pipe(data))
    link = tmp_path / "link.flac"
    link.symlink_to(path)
    with path.open("rb") as file:
        for source in (str(path), data, bytearray(data), memoryview(data), half_read, file, pipe, link):
            np.testing.assert_array_equal(read(source).samples, expected.samples)
        assert not file.closed


def test_an_endless_unseekable_source_is_refused() -> None:
    with Path("/dev/zero").open("rb", buffering=0) as zero, pytest.raises(AudioError) as caught:
        load(io.BufferedReader(_Pipe(b"", zero)), limits=Limits(upload_mb=2))
    assert caught.value.code == "TOO_LARGE"


class _Pipe(io.RawIOBase):
    def __init__(self, data: bytes, behind: io.RawIOBase | None = None) -> None:
        self._from = behind or io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:
        return self._from.readinto(buffer)


@pytest.mark.parametrize("extension", [".mp3", ".txt", ".m3u8", ".wav", ""])
def test_the_extension_plays_no_part(tmp_path: Path, extension: str) -> None:
    path = put(tmp_path, "clip" + extension, encode(tone(), 44_100, "ipod", "aac"))
    assert read(path).origin.codec == "aac"


def test_tags_in_any_encoding_do_no_harm() -> None:
    data = encode(tone(), 16_000, "wav", "pcm_s16le", tags={"title": "aaaa"})
    assert b"aaaa" in data
    assert codes(read(data.replace(b"aaaa", b"\xff\xfe\xe9\x80"))) == []


@pytest.mark.parametrize(("name", "shown"), [
    ("../../x.wav", "x.wav"), ("/etc/passwd", "passwd"), ("C:\\a\\b.wav", "b.wav"), ("a\0b.wav", "a b.wav"),
    ("a\nb\r\n.wav", "a b .wav"), ("😀‍🔥.wav", "😀‍🔥.wav"), ("abc\u202evaw.exe", "abcvaw.exe"),
    ("שלום.wav", "שלום.wav"), ("é.wav", "é.wav"),
    ("-rf.wav", "-rf.wav"), ("=1+1.wav", "=1+1.wav"), ("", "audio"),
    ("///", "audio"),
    ("<img onerror=x>.wav", "<img onerror=x>.wav"), (".wav", ".wav"), ("\ud800.wav", "?.wav"),
    ("x" * 300, "x" * 197 + "…"),
    ("好" * 100, "好" * 65 + "…"),
])  # fmt: skip
def test_names_are_shown_safely(name: str, shown: str) -> None:
    wave = read(tone()[0], name=name) if name else None
    assert display_name(name, LIMITS.name_bytes) == shown
    assert wave is None or wave.name == shown
    shown.encode()


def test_write_wav_round_trip_is_exact(tmp_path: Path) -> None:
    steps = np.random.default_rng(1).integers(-32_768, 32_768, 50_000).astype(np.int16)
    path = tmp_path / "out.wav"
    write_wav(path, read(steps))
    assert path.stat().st_size == 44 + 100_000
    np.testing.assert_array_equal(read(path).samples, steps / np.float32(32_768))
    write_wav(path, Waveform(np.array([2.0] * 400 + [-2.0] * 400, np.float32)))
    assert read(path).samples.max() < 1 and read(path).samples.min() == -1
