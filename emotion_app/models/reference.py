"""``engine=funasr``: FunASR's own AutoModel behind the FrameModel contract, to compare with and to fall back on.

It computes one clip at a time, in fp32, from a local directory, and is given arrays only: it would open a path or a URL
by itself. Frame logits, which it does not give, come from its own head applied to its own frame features.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emotion_app.errors import ModelError
from emotion_app.labels import EMOTIONS
from emotion_app.models import FrameArrays, WindowPlan
from emotion_app.models.config import read_config, read_tokens
from emotion_app.models.scale import Scale, Scaled, standardise
from emotion_app.types import EXCLUDED_LOGIT, Floats, ModelInfo

PLAN = WindowPlan(whole_s=60.0, body_s=27.0, context_s=3.0)


class Reference(Scaled):
    """FunASR's model.

    Args:
        model: its AutoModel.
        rows: for each row of the head, its emotion or None.
        normalize: whether the waveform is layer-normed, as config.yaml says.
        info: what to say about it.
    """

    plan = PLAN

    def __init__(self, model: Any, rows: tuple[int | None, ...], normalize: bool, info: ModelInfo) -> None:
        self.info = info
        self._model = model
        self._rows = rows
        self._normalize = normalize

    def scale(self, samples: Floats) -> Scale:
        """Layer norm of the whole waveform; windows are not normalised again (see ``forward``)."""
        return standardise(samples) if self._normalize else Scale()

    def forward(self, waves: Sequence[Floats]) -> list[FrameArrays]:
        """Frames of prepared waves, one by one, by FunASR's ``extract_features``."""
        import torch

        network = self._model.model
        answers = []
        with torch.no_grad():
            for wave in waves:
                source = torch.from_numpy(np.ascontiguousarray(wave))[None].to(next(network.parameters()).device)
                x = network.extract_features(source, padding_mask=None)["x"][0]
                logits = network.proj(x).float().cpu().numpy()
                answers.append(FrameArrays(x.float().cpu().numpy(), self._arrange(logits)))
        return answers

    def batch_limit(self, n_samples: int) -> int:
        """Always 1: its padding changes results."""
        return 1

    def generate(self, samples: Floats) -> tuple[Floats, Floats]:
        """Its own answer to a raw clip: nine scores in our order, and the utterance embedding (D,)."""
        said = self._model.generate(samples, granularity="utterance", extract_embedding=True, disable_pbar=True)[0]
        scores = np.zeros(len(EMOTIONS), dtype=np.float32)
        kept = [index for index in self._rows if index is not None]
        scores[kept] = np.asarray(said["scores"], dtype=np.float32)
        return scores, np.asarray(said["feats"], dtype=np.float32)

    def _arrange(self, logits: Floats) -> Floats:
        full = np.full((len(logits), len(EMOTIONS)), EXCLUDED_LOGIT, dtype=np.float32)
        for row, index in enumerate(self._rows):
            if index is not None:
                full[:, index] = logits[:, row]
        return full


def load_reference(directory: Path, name: str, source: str, threads: int, device: str = "auto") -> Reference:
    """Load a directory in the hub's layout with FunASR; no hub is asked and no code of the checkpoint is run.

    Raises:
        ModelError: ENGINE_UNAVAILABLE when FunASR is not installed, MODEL_BROKEN when it cannot load the directory.
    """
    from emotion_app.models import device as devices
    from emotion_app.models.files import checkpoint_file
    from emotion_app.models.weights import read_state

    config, rows = read_config(directory, name), read_tokens(directory, name)
    weights = checkpoint_file(directory)
    if weights is None:
        raise ModelError("MODEL_MISSING", name=name)
    read_state(weights, config, len(rows), name)  # FunASR leaves missing tensors random and goes on: check first
    where = devices.pick(device)
    try:
        with contextlib.redirect_stdout(io.StringIO()), _quiet():
            from funasr import AutoModel

            model = AutoModel(
                model=str(directory.resolve()),
                device=where,
                ncpu=threads,
                disable_update=True,
                disable_pbar=True,
                log_level="ERROR",
            )
    except ImportError as error:
        raise ModelError("ENGINE_UNAVAILABLE", engine="funasr", reason=f"FunASR is not installed ({error})") from error
    except Exception as error:  # whatever its loader raises, the files are at fault or unsupported
        raise ModelError("MODEL_BROKEN", name=name, reason=f"FunASR: {type(error).__name__}: {error}"[:300]) from error
    info = ModelInfo(
        name=name,
        family="emotion2vec",
        source=source,
        engine="funasr",
        precision="fp32",
        device=where,
        dim=config.dim,
        labels=tuple(EMOTIONS[i].key for i in sorted(i for i in rows if i is not None)),
    )
    return Reference(model, rows, config.normalize, info)


@contextlib.contextmanager
def _quiet() -> Any:
    """FunASR logs one line a tensor on the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
