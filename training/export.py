"""From a trained network to ``lite.safetensors``: int8 rows, temperature folded into the heads, facts as metadata."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from emotion_app.models.lite import quantise
from emotion_app.models.lite_network import LiteNet
from training.heads import CAP, SHRINK, SHUT, UNKNOWN, Centre

MIN_REFERENCE_CLIPS = 3  # below this the baseline's own noise costs more than it gains


@dataclass(frozen=True)
class Facts:
    """What the file says about itself.

    Attributes:
        version: of the weights.
        licence: of the weights, as the data demand.
        credits: what they come from: one line each.
        full_frames: see ``LiteModel``.
    """

    version: str
    licence: str
    credits: tuple[str, ...]
    full_frames: int


@dataclass(frozen=True, eq=False)
class Trained:
    """A network with everything that its answers need.

    Attributes:
        net: encoder and heads.
        bias: (9,) of the reference head.
        centre: the training speakers in feature space.
        temperature: of the plain head.
        reference_temperature: of the reference head.
    """

    net: LiteNet
    bias: torch.Tensor
    centre: Centre
    temperature: float = 1.0
    reference_temperature: float = 1.0


def write(trained: Trained, facts: Facts, path: Path) -> None:
    """Write the file: aside, then renamed."""
    state = {name: value.detach().clone() for name, value in trained.net.state_dict().items()}
    for name in ("head.weight", "head.bias"):
        state[name] /= trained.temperature
    state["reference.weight"] /= trained.reference_temperature
    state["reference.weight"][UNKNOWN] = 0  # the reference head is never asked whether it is speech
    head = state["reference.weight"]
    bias = trained.bias / trained.reference_temperature
    bias[UNKNOWN] = SHUT
    shape = trained.net.encoder.shape
    lite = {
        "version": facts.version,
        "licence": facts.licence,
        "credits": list(facts.credits),
        "blocks": shape.blocks,
        "width": shape.width,
        "hidden": shape.hidden,
        "taps": list(shape.taps),
        "floor": shape.floor,
        "pause_db": shape.pause_db,
        "full_frames": facts.full_frames,
        "temperature": trained.temperature,
        "reference_temperature": trained.reference_temperature,
        "baseline": {
            "n0": SHRINK,
            "cap": CAP,
            "min_clips": MIN_REFERENCE_CLIPS,
            "g": (head @ trained.centre.overall).tolist(),
            "d": (head @ trained.centre.neutral).tolist(),
            "b": bias.tolist(),
        },
    }
    aside = path.with_suffix(".partial")
    save_file(quantise(state), aside, metadata={"format": "pt", "lite": json.dumps(lite, ensure_ascii=False)})
    aside.chmod(0o644)  # safetensors writes for the owner alone
    os.replace(aside, path)
