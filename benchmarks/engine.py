"""How fast the engine is: FunASR and each of our variants in one run, alternating, on the full large config.

    python benchmarks/engine.py            # every length, cold start, memory; about 15 min on two quiet cores
    python benchmarks/engine.py --quick    # 1, 3 and 10 s
    python benchmarks/engine.py --hour     # also an hour of audio in fp32, in a child process
    python benchmarks/engine.py --onnx fp32 int8 --lengths 3 10 30 --skip batch  # the exported files beside it
    python benchmarks/engine.py --lite --onnx fp32 int8 --lengths 3 10 --skip batch  # the embedded model

Weights are random (``emotion_app.testing``): speed and memory do not depend on them. Prints tables and one JSON line.
A ratio is the median of the ratios within the rounds, so that a slow moment of the machine falls on both
sides. ``stolen`` is the share of time that a virtual machine's host gave to others meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# several networks share this process: with the app's bound of 64 kernels each would throw out those of the others
os.environ |= {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024", "LRU_CACHE_CAPACITY": "1024"}

import numpy as np
import psutil

import emotion_app.calm  # noqa: F401 - before numpy
from emotion_app.models import FrameModel
from emotion_app.models.loader import LITE, load_model, thread_count
from emotion_app.settings import Settings
from emotion_app.types import SAMPLE_RATE, Floats, Waveform, n_frames

FUNASR_MAX_S = 60  # it holds several (16, T, T) arrays: 300 s would want 14 GB for each
LENGTHS_S = (1, 3, 10, 30, 60, 300)
OURS = ("fp32", "bf16")
HOUR_AS = {"precision": "fp32", "engine": "torch"}


@dataclass(frozen=True)
class Cell:
    """One variant at one length, medians over the rounds; ratios are to the first variant (FunASR where it runs)."""

    variant: str
    seconds: float
    wall_s: float
    cpu_s: float
    wall_ratio: float
    cpu_ratio: float
    limit_share: float | None


def clip(seconds: float) -> Floats:
    """Modulated tones and noise: what is said does not change how long it takes."""
    dice = np.random.default_rng(7)
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    sound = np.sin(2 * np.pi * 140 * t + 3 * np.sin(2 * np.pi * 1.3 * t)) * (1 + np.sin(2 * np.pi * 4 * t))
    return (0.1 * sound + 0.01 * dice.standard_normal(len(t))).astype(np.float32)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """(wall, CPU) seconds of one call; CPU of all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


Spent = dict[str, list[tuple[float, float]]]  # (wall, CPU) of each work in each round


def alternate(works: dict[str, Callable[[], object]], rounds: int) -> Spent:
    """Every work in every round, one after the other, after a warm-up."""
    taken: Spent = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            spent = timed(work)
            if turn:
                taken[name].append(spent)
    return taken


def middle(spent: Spent, name: str, column: int) -> float:
    """Median wall (0) or CPU (1) seconds."""
    return statistics.median(row[column] for row in spent[name])


def ratio(spent: Spent, base: str, name: str, column: int) -> float:
    """Median over the rounds of base / name."""
    return statistics.median(b[column] / n[column] for b, n in zip(spent[base], spent[name], strict=True))


def stolen_share(before: object, after: object) -> float:
    """Share of the time between two ``psutil.cpu_times()`` that the host gave to other machines."""
    spent = sum(after) - sum(before)  # type: ignore[arg-type, call-overload]
    return (getattr(after, "steal", 0.0) - getattr(before, "steal", 0.0)) / spent if spent else 0.0


def flops(directory: Path, seconds: float) -> dict[str, float]:
    """Multiply-adds times two of one clip by part, from config.yaml."""
    from emotion_app.models.config import read_config

    config = read_config(directory, "benchmark")
    frames = n_frames(int(seconds * SAMPLE_RATE))
    tokens, dim = frames + config.extra_tokens, config.dim
    front, rows, before = 0.0, int(seconds * SAMPLE_RATE), 1
    for channels, kernel, stride in config.conv:
        rows = (rows - kernel) // stride + 1
        front += 2 * rows * kernel * before * channels
        before = channels
    front += 2 * frames * before * dim
    positions = config.pos_layers * 2 * frames * dim * (dim // config.pos_groups) * config.pos_kernel
    blocks = config.n_blocks * 2 * tokens * (4 * dim * dim + 2 * dim * config.hidden)
    return {
        "front": front,
        "positions": positions,
        "blocks": blocks,
        "attention": config.n_blocks * 4 * tokens**2 * dim,
    }


def gemms(rows: int, precision: str) -> tuple[Callable[[], object], float]:
    """The four products of a block on ``rows`` tokens, weights laid out as the model has them, and their FLOPs."""
    import torch

    from emotion_app.models.emotion2vec import DTYPES
    from emotion_app.models.kernels import Linear

    shapes = ((3072, 1024), (1024, 1024), (4096, 1024), (1024, 4096))
    layers = [
        (Linear(torch.randn(n, k).to(DTYPES[precision]), None), torch.randn(rows, k).to(DTYPES[precision]))
        for n, k in shapes
    ]

    def work() -> None:
        with torch.inference_mode():
            for layer, x in layers:
                layer(x)

    return work, sum(2.0 * rows * n * k for n, k in shapes)


def variants(name: str, settings: Settings, onnx: list[str]) -> dict[str, FrameModel]:
    """Our ways to run a model."""
    ours = OURS if name != LITE else ("fp32", "bf16")
    models = {p: load_model(name, settings.model_copy(update={"precision": p})) for p in ours}
    for kind in onnx:
        wanted = settings.model_copy(update={"precision": kind, "engine": "onnx"})
        models[f"onnx {kind}"] = load_model(name, wanted)
    return models


def lengths_table(name: str, settings: Settings, lengths: list[float], rounds: int, onnx: list[str]) -> list[Cell]:
    """Every variant at every length, with the product rate of this machine measured in the same rounds."""
    from emotion_app.engine import Engine

    models = variants(name, settings, onnx)
    theirs = None if name == LITE else load_model(name, settings.model_copy(update={"engine": "funasr"}))
    cells: list[Cell] = []
    for seconds in lengths:
        wave = Waveform(clip(seconds))
        works: dict[str, Callable[[], object]] = {}
        if theirs and seconds <= FUNASR_MAX_S:
            works["funasr"] = lambda w=wave: theirs.forward([theirs.prepare(w.samples)])
        limits = {}
        for variant, model in models.items():
            works[variant] = lambda m=model, w=wave: Engine(m).run([w])
            if name != LITE and variant in OURS:
                rows = min(n_frames(len(wave.samples)), int(model.plan.whole_s * 50)) + 10
                works[f"products {variant}"], limits[variant] = gemms(rows, variant)
        spent = alternate(works, rounds if seconds < 60 else max(1, rounds // 2))
        base = next(iter(works))
        for variant in (v for v in works if not v.startswith("products")):
            share = None
            if variant in limits and seconds <= FUNASR_MAX_S:
                total = sum(flops(Path(name), seconds).values())
                share = total / limits[variant] * ratio(spent, f"products {variant}", variant, 1)
            times = middle(spent, variant, 0), middle(spent, variant, 1)
            ratios = ratio(spent, base, variant, 0), ratio(spent, base, variant, 1)
            cells.append(Cell(variant, seconds, *times, *ratios, share))
        show(cells, seconds, {v: limits[v] / middle(spent, f"products {v}", 1) / 1e9 for v in limits})
    return cells


def show(cells: list[Cell], seconds: float, rates: dict[str, float]) -> None:
    """One line a variant."""
    for cell in (c for c in cells if c.seconds == seconds):
        line = f"{seconds:5g} s  {cell.variant:9s} {cell.wall_s:8.3f} s wall {cell.cpu_s:8.3f} s CPU"
        line += f"  {cell.wall_ratio:5.2f}x wall {cell.cpu_ratio:5.2f}x CPU"
        if cell.limit_share:
            line += f"  {cell.limit_share:.0%} of {rates[cell.variant]:.0f} GFLOP/s a core"
        print(line, flush=True)


def batch_table(directory: str, settings: Settings, rounds: int) -> dict[str, float]:
    """How much faster 8 clips of 1 s are together than one by one."""
    gains = {}
    for precision in OURS:
        model = load_model(directory, settings.model_copy(update={"precision": precision}))
        waves = [model.prepare(clip(1.0)) for _ in range(8)]
        works = {
            "single": lambda m=model, w=waves: [m.forward([x]) for x in w],
            "batch": lambda m=model, w=waves: m.forward(w),
        }
        rows = sum(n_frames(len(wave)) + 10 for wave in waves)
        works["products one by one"], few = gemms(rows // 8, precision)
        works["products together"], many = gemms(rows, precision)
        spent = alternate(works, rounds)
        gains[precision] = ratio(spent, "single", "batch", 0)
        limit = ratio(spent, "products one by one", "products together", 0) * many / few
        single, batch = middle(spent, "single", 0), middle(spent, "batch", 0)
        print(
            f"8 x 1 s {precision}: one by one {single:.3f} s, together {batch:.3f} s: {gains[precision]:.2f}x wall, "
            f"{ratio(spent, 'single', 'batch', 1):.2f}x CPU; the products alone gain {limit:.2f}x",
            flush=True,
        )
    return gains


START = """
import json, sys, time
start = time.perf_counter()
def mb(key):  # ru_maxrss would count the parent's memory at the fork
    return int(next(l for l in open("/proc/self/status") if l.startswith(key)).split()[1]) / 1024
sys.path.insert(0, {root!r})
from emotion_app.models.loader import calm_threads, load_model
calm_threads()
from pathlib import Path
from emotion_app.settings import Settings
import numpy as np
wanted = dict(models_dir=Path({models!r}), precision={precision!r}, engine={engine!r}, threads={threads})
m = load_model({directory!r}, Settings(offline=True, device="cpu", **wanted))
loaded = time.perf_counter() - start
one = np.load({clip!r})
m.forward([m.prepare(one)])
"""

COLD = (
    START
    + """
print(json.dumps([loaded, time.perf_counter() - start, time.process_time(), mb("VmHWM")]))
"""
)

HOUR = (
    START
    + """
from emotion_app.engine import Engine
from emotion_app.types import Waveform
wave = Waveform(np.tile(one, {seconds} * 16000 // len(one)))
half_minute = Waveform(np.tile(one, 10))
before = mb("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
engine, turn, aside = Engine(m), 0, []
def beside(done):  # a clip of 30 s among the windows: both see the same machine
    global turn
    turn += 1
    if turn % 8 == 1:
        began, busy = time.perf_counter(), time.process_time()
        engine.run([half_minute])
        aside.append([time.perf_counter() - began, time.process_time() - busy])
start, cpu = time.perf_counter(), time.process_time()
engine.run([wave], progress=beside)
walls, cpus = zip(*aside)
spent = time.perf_counter() - start - sum(walls), time.process_time() - cpu - sum(cpus)
ratios = [whole / {seconds} / (sum(part) / len(part) / 30) for whole, part in zip(spent, (walls, cpus))]
print(json.dumps([before, mb("VmHWM"), *spent, *ratios]))
"""
)


def child(source: str, directory: str, settings: Settings, **facts: object) -> list[float]:
    """Run a script in a fresh process and read its JSON line."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file.name, clip(3.0))
        code = source.format(
            root=str(Path(__file__).resolve().parents[1]),
            models=str(settings.models_dir),
            directory=directory,
            threads=thread_count(settings),
            clip=file.name,
            **facts,
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def cold_table(directory: str, settings: Settings, rounds: int, onnx: list[str]) -> dict[str, list[float]]:
    """Process start to first score of a 3 s clip, and peak memory, alternating."""
    kinds = {
        **({} if directory == LITE else {"funasr": {"precision": "fp32", "engine": "funasr"}}),
        **{p: {"precision": p, "engine": "torch"} for p in OURS},
        **{f"onnx {kind}": {"precision": kind, "engine": "onnx"} for kind in onnx},
    }
    rows: dict[str, list[list[float]]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, facts in kinds.items():
            rows[name].append(child(COLD, directory, settings, **facts))
    found = {name: [statistics.median(column) for column in zip(*runs, strict=True)] for name, runs in rows.items()}
    for name, (loaded, first, cpu, peak) in found.items():
        base = next(iter(found.values()))
        print(
            f"cold {name:9s} loaded {loaded:6.2f} s, first score {first:6.2f} s ({first / base[1]:.2f} of the first), "
            f"CPU {cpu:6.2f} s, peak {peak:5.0f} MB ({peak / base[3]:.2f})",
            flush=True,
        )
    return found


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1, 3 and 10 s, fewer rounds")
    parser.add_argument("--lengths", type=float, nargs="+", help="seconds of each clip")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--skip", nargs="*", default=[], choices=["lengths", "batch", "cold"])
    parser.add_argument("--hour", type=float, nargs="?", const=60.0, help="minutes of audio for the memory test (60)")
    parser.add_argument(
        "--checkpoint", type=Path, help="a directory in the hub's layout instead of random large weights"
    )
    parser.add_argument("--lite", action="store_true", help="the embedded model instead")
    parser.add_argument("--onnx", nargs="*", default=[], choices=["fp32", "fp16", "int8"], help="exported files too")
    parser.add_argument("--threads", type=int, default=0)
    asked = parser.parse_args()
    import torch

    lengths = asked.lengths or ((1, 3, 10) if asked.quick else LENGTHS_S)
    rounds = min(asked.rounds, 3) if asked.quick else asked.rounds
    with tempfile.TemporaryDirectory(prefix="emotion-bench-") as temporary:
        settings = Settings(models_dir=Path(temporary) / "models", threads=asked.threads, offline=True, device="cpu")
        directory = LITE if asked.lite else asked.checkpoint
        if directory is None:
            from emotion_app.testing import write_checkpoint

            directory = write_checkpoint(Path(temporary) / "large", "large")
        directory = str(directory)
        for name, model in variants(directory, settings, asked.onnx).items():  # convert before anything is timed
            del model
            print(f"{name} is ready", flush=True)
        for path in sorted(settings.models_dir.rglob("*.onnx")):
            print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
        torch.set_num_threads(thread_count(settings))
        print(
            f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, "
            f"load {os.getloadavg()[0]:.1f}"
        )
        result: dict[str, object] = {"load_before": os.getloadavg()}
        before = psutil.cpu_times()
        if "lengths" not in asked.skip:
            cells = lengths_table(directory, settings, list(lengths), rounds, asked.onnx)
            result["cells"] = [asdict(c) for c in cells]
        if "batch" not in asked.skip:
            result["batch"] = batch_table(directory, settings, rounds)
        if "cold" not in asked.skip:
            result["cold"] = cold_table(directory, settings, 1 if asked.quick else 3, asked.onnx)
        if asked.hour:
            row = child(HOUR, directory, settings, **HOUR_AS, seconds=int(asked.hour * 60))
            loaded, peak, wall, cpu, wall_ratio, cpu_ratio = row
            result["hour"] = [asked.hour, *row]
            print(
                f"{asked.hour:g} min fp32: {loaded:.0f} MB loaded, peak +{peak - loaded:.0f} MB, "
                f"{wall:.0f} s wall, {cpu:.0f} s CPU, {cpu / asked.hour / 60:.3f} CPU s a second of audio, "
                f"{wall_ratio:.2f}x wall and {cpu_ratio:.2f}x CPU of a second of the 30 s clips among its windows"
            )
        result["load_after"], result["stolen"] = os.getloadavg(), stolen_share(before, psutil.cpu_times())
        print(f"load {os.getloadavg()[0]:.1f}, stolen {result['stolen']:.0%}")
        print(json.dumps(result))


if __name__ == "__main__":
    main()
