"""``python -m training STEP --config FILE --manifest FILE --cache FOLDER --run FOLDER``."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from pathlib import Path

import torch

from emotion_app.errors import EmotionError
from training import config as settings
from training.pipeline import Run

ALL = ("features", "train", "calibrate", "export", "evaluate")  # in this order
STEPS = (*ALL, "finetune", "spread", "folds", "all")


def main(arguments: list[str] | None = None) -> int:
    """Run one step, or all of them; the exit code of the error table on failure."""
    parser = argparse.ArgumentParser(prog="python -m training", description="Train the embedded emotion model.")
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--config", type=Path, default=Path(__file__).parent / "configs" / "lite.toml")
    parser.add_argument("--manifest", type=Path, required=True, help="CSV with path, corpus, speaker, emotion, split")
    parser.add_argument("--cache", type=Path, required=True, help="log-mels; may be shared by runs on the same clips")
    parser.add_argument("--run", type=Path, required=True, help="folder of this run")
    parser.add_argument(
        "--weights", type=Path, help="lite.safetensors to write or to evaluate (default: in the run folder)"
    )
    parser.add_argument("--teacher", help="hub id, directory or name of a model whose frame logits are learned from")
    cuda = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument(
        "--device", default=cuda, help="where the network is trained (default: a GPU when there is one)"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch, and worker processes of features")
    parser.add_argument("--seed", type=int, help="one fine-tuning run, instead of the config's seeds")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    torch.set_num_threads(given.threads)
    try:
        config = settings.read(given.config)
        if given.seed is not None:
            config = dataclasses.replace(config, seeds=(given.seed,))
        run = Run(config, given.manifest, given.cache, given.run, given.threads, given.teacher, given.device)
        weights = given.weights or given.run / "lite.safetensors"
        for step in ALL if given.step == "all" else (given.step,):
            {
                "features": run.make_features,
                "train": run.train,
                "finetune": run.finetune,
                "spread": lambda: print(run.spread()),
                "folds": lambda: print(run.folds()),
                "calibrate": run.calibrate,
                "export": lambda: run.export(weights),
                "evaluate": lambda: run.evaluate(weights),
            }[step]()
    except EmotionError as error:
        print(error.text("en"), file=sys.stderr)
        return error.problem.exit
    return 0


if __name__ == "__main__":
    sys.exit(main())
