"""``emotion-app doctor``: what is installed, what works, and whether both engines agree. Every line is a real trial."""

from __future__ import annotations

import io
import os
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from emotion_app import audio
from emotion_app.engine import Engine
from emotion_app.errors import EmotionError
from emotion_app.models.loader import inspect, known_models, load_model, resolve
from emotion_app.settings import Settings
from emotion_app.timeline import build
from emotion_app.types import SAMPLE_RATE, Floats, ModelInfo, Waveform

PACKAGES = (
    "torch",
    "gradio",
    "funasr",
    "modelscope",
    "huggingface-hub",
    "av",
    "soxr",
    "safetensors",
    "numpy",
    "silero-vad",
    "fastapi",
    "python-socketio",
    "onnxruntime",
)
FORMATS = (  # container, encoder, file ending, sampling rate
    ("wav", "pcm_s16le", "wav", 44_100),
    ("wav", "pcm_s24le", "wav", 48_000),
    ("wav", "pcm_f32le", "wav", 16_000),
    ("wav", "pcm_mulaw", "wav", 8_000),
    ("mp3", "libmp3lame", "mp3", 44_100),
    ("ipod", "aac", "m4a", 44_100),
    ("flac", "flac", "flac", 48_000),
    ("ogg", "libvorbis", "ogg", 48_000),
    ("ogg", "libopus", "opus", 48_000),
    ("webm", "libopus", "webm", 48_000),
    ("amr", "libopencore_amrnb", "amr", 8_000),
    ("asf", "wmav2", "wma", 44_100),
)
# emotion2vec issue 88: scores of the hub's example/test.wav by emotion2vec_plus_large, in the order of labels.EMOTIONS.
PUBLISHED = (0.003793, 0.000550, 0.000867, 0.121792, 0.000224, 0.000007, 0.868382, 0.004384, 0.0000002)
EXAMPLE = "example/test.wav"
PUBLISHED_WITHIN = 1e-3
PARITY_WITHIN = 1e-5  # fp32 against FunASR; bf16 and fp16 are only reported


@dataclass(frozen=True)
class Check:
    """One line of the report; ``ok`` is None for plain information."""

    topic: str
    detail: str
    ok: bool | None = None


def examine(settings: Settings) -> list[Check]:
    """Every check, in the order of the report. Never raises for a failing part."""
    return [
        Check("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *_packages(),
        *_devices(),
        *_disk(settings),
        *_formats(settings),
        *_model_files(settings),
        *_models(settings),
    ]


def _packages() -> Iterator[Check]:
    for name in PACKAGES:
        try:
            yield Check(name, version(name), True)
        except PackageNotFoundError:
            optional = name == "onnxruntime"
            yield Check(
                name,
                "not installed (only engine=onnx needs it)" if optional else "not installed",
                None if optional else False,
            )


def _devices() -> Iterator[Check]:
    from emotion_app.models.device import describe, pick

    for device in dict.fromkeys(("cpu", pick("auto"))):
        yield Check("device", describe(device))
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("cpu cores", f"{usable} usable of {os.cpu_count()}")


def _disk(settings: Settings) -> Iterator[Check]:
    for what, folder in (("results", settings.outputs_dir), ("models", settings.models_dir)):
        there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        free_mb = shutil.disk_usage(there).free / 1e6
        yield Check(f"disk for {what}", f"{folder}: {free_mb:,.0f} MB free", free_mb > settings.limits.disk_free_mb)


def _formats(settings: Settings) -> Iterator[Check]:
    """Encode half a second in each format with the decoder's own library, decode it back, compare the pitch."""
    for container, encoder, ending, rate in FORMATS:
        topic = f"decode {ending} ({encoder})"
        try:
            encoded = _encode(container, encoder, rate)
        except (ValueError, OSError) as error:
            yield Check(topic, f"no encoder here to try it with ({type(error).__name__})")
            continue
        try:
            wave = audio.load(encoded, limits=settings.limits, name=f"doctor.{ending}")
        except EmotionError as error:
            yield Check(topic, error.text("en"), False)
            continue
        hz = _loudest_hz(wave.samples)
        yield Check(topic, f"{wave.duration_s:.2f} s, tone at {hz:.0f} Hz", abs(hz - 440) < 15)


def _model_files(settings: Settings) -> Iterator[Check]:
    for name in _names(settings):
        stored = inspect(name, settings)
        if stored.choice.family == "lite":
            continue
        if stored.weights is None:
            yield Check(f"files of {name}", f"not here (emotion-app models get {name})")
            continue
        yield Check(f"files of {name}", f"{stored.weights}, {stored.weights_mb:,.0f} MB", True)
        if stored.checkpoint is not None:
            record = stored.checkpoint.record
            yield Check(f"hash of {name}", f"sha256 {record.sha256}, revision {record.revision or '-'}")
        for line in stored.checks:
            yield Check(f"precision of {name}", line)


def _names(settings: Settings) -> list[str]:
    names = [known.name for known in known_models()]
    return names if settings.model in ("auto", *names) else [*names, settings.model]


def _models(settings: Settings) -> Iterator[Check]:
    """Run the embedded model, and every other model whose files are here."""
    for name in _names(settings):
        try:
            if resolve(name, settings).ready:
                yield from _one_model(name, settings)
        except EmotionError as error:
            yield Check(f"run {name}", error.text("en"), False)


def _one_model(name: str, settings: Settings) -> Iterator[Check]:
    began = time.monotonic()
    model = load_model(name, settings, None)
    load_s = time.monotonic() - began
    clip, what = _clip(name, settings)
    began = time.monotonic()
    scores = _scores(Engine(model), clip)
    took_s = time.monotonic() - began
    yield Check(
        f"run {name}", f"{describe_model(model.info)}; loaded in {load_s:.2f} s, {what} in {took_s:.2f} s", True
    )
    if model.info.family != "emotion2vec":
        return
    as_reference = {"engine": "funasr", "precision": "fp32", "device": "cpu"}
    reference = load_model(name, settings.model_copy(update=as_reference), None)
    gap = float(np.abs(_scores(Engine(reference), clip) - scores).max())
    within = gap <= PARITY_WITHIN if model.info.precision == "fp32" else None
    detail = f"largest score difference {gap:.2e} ({model.info.precision})"
    yield Check(f"{name}: torch against FunASR", detail, within)
    if name == "emotion2vec_plus_large" and what == EXAMPLE:
        gap = float(np.abs(scores - np.array(PUBLISHED)).max())
        detail = f"largest difference {gap:.2e} (emotion2vec issue 88)"
        yield Check("against the published scores", detail, gap <= PUBLISHED_WITHIN)


def describe_model(info: ModelInfo) -> str:
    """Name, engine, precision, device, revision and hash in one line."""
    sha = f", sha256 {info.sha256[:12]}" if info.sha256 else ""
    return f"{info.engine} {info.precision} on {info.device}, D = {info.dim}, revision {info.revision or '-'}{sha}"


def _clip(name: str, settings: Settings) -> tuple[Waveform, str]:
    """The hub's own example when it is there, else a made sound."""
    directory = resolve(name, settings).directory
    if directory is not None and (directory / EXAMPLE).is_file():
        return audio.load(directory / EXAMPLE, limits=settings.limits), EXAMPLE
    return audio.load((SAMPLE_RATE, _tone(SAMPLE_RATE, 3.0)), limits=settings.limits, name="tone"), "a 3 s tone"


def _scores(engine: Engine, clip: Waveform) -> np.ndarray:
    return build(engine.run([clip])[0], clip.duration_s, 1.0)[0].scores


def _tone(rate: int, seconds: float) -> Floats:
    t = np.arange(int(rate * seconds)) / rate
    return (0.3 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)


def _loudest_hz(samples: Floats) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * SAMPLE_RATE / len(samples)


def _encode(container: str, encoder: str, rate: int) -> bytes:
    """Half a second of 440 Hz as a file in memory.

    Raises:
        ValueError: no such encoder in this build of FFmpeg.
    """
    import av

    target = io.BytesIO()
    with av.open(target, "w", format=container) as file:
        stream = file.add_stream(encoder, rate=rate, layout="mono", bit_rate=64_000)
        frame = av.AudioFrame.from_ndarray(_tone(rate, 0.5)[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        for part in (frame, None):
            file.mux(stream.encode(part))
    return target.getvalue()
