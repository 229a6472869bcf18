"""Random-weight checkpoints in the hub's own layout, for tests and benchmarks where the real weights are not at hand.

The weights are seeded and made less trivial than an initialisation gives: every head has its own distance-bias scale
(some below the clamp at 0), norm gains are uneven, and the head is sharp, so that scores differ from clip to clip.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emotion_app.labels import EMOTIONS

HUB_TOKENS: tuple[str, ...] = tuple(e.hub for e in EMOTIONS)
CONV_SPEC = "[({c}, 10, 5)] + [({c}, 3, 2)] * 4 + [({c},2,2)] + [({c},2,2)]"
SIZES: dict[str, dict[str, int]] = {
    "tiny": {"embed_dim": 48, "num_heads": 4, "depth": 2, "prenet_depth": 1, "channels": 32, "decoder_dim": 16},
    "small": {"embed_dim": 96, "num_heads": 12, "depth": 2, "prenet_depth": 2, "channels": 64, "decoder_dim": 32},
    "base": {"embed_dim": 768, "num_heads": 12, "depth": 8, "prenet_depth": 4, "channels": 512, "decoder_dim": 384},
    "large": {"embed_dim": 1024, "num_heads": 16, "depth": 8, "prenet_depth": 4, "channels": 512, "decoder_dim": 768},
}


def write_checkpoint(
    directory: Path,
    size: str = "tiny",
    *,
    tokens: Sequence[str] = HUB_TOKENS,
    seed: int = 0,
    wrap: str | None = "model",
    prefix: str = "d2v_model.",
    decoder: bool = True,
    **conf: Any,
) -> Path:
    """Write ``config.yaml``, ``configuration.json``, ``tokens.txt`` and ``model.pt``.

    Args:
        directory: made if it is missing.
        size: a key of SIZES; ``large`` has the hub's 164 M parameters.
        tokens: lines of tokens.txt, one a row of the head.
        seed: of all weights.
        wrap: key under which the tensors lie in model.pt, or None for a bare dict.
        prefix: in front of the encoder's names.
        decoder: add the decoder that training leaves behind.
        **conf: changes of ``model_conf``; ``audio__x`` changes ``modalities.audio.x``.

    Returns:
        The directory.
    """
    import torch
    import yaml

    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "model": "Emotion2vec",
        "model_conf": model_conf(size, **conf),
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
        "scope_map": ["d2v_model.", "none"],
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (directory / "tokens.txt").write_text("\n".join(tokens), encoding="utf-8")
    metas = {"init_param": "model.pt", "tokenizer_conf": {"token_list": "tokens.txt"}, "config": "config.yaml"}
    (directory / "configuration.json").write_text(
        json.dumps({"model": {"type": "funasr"}, "file_path_metas": metas}), encoding="utf-8"
    )
    state = random_state(config["model_conf"], len(tokens), seed, decoder)
    state = {(key if key.startswith("proj.") else prefix + key): tensor for key, tensor in state.items()}
    torch.save(state if wrap is None else {wrap: state}, directory / "model.pt")
    return directory


def model_conf(size: str, **changes: Any) -> dict[str, Any]:
    """``model_conf`` of config.yaml with the hub's keys for ``size``."""
    s = SIZES[size]
    audio: dict[str, Any] = {
        "type": "AUDIO",
        "prenet_depth": s["prenet_depth"],
        "model_depth": s["depth"],
        "num_alibi_heads": s["num_heads"],
        "extractor_mode": "layer_norm",
        "feature_encoder_spec": CONV_SPEC.format(c=s["channels"]),
        "conv_pos_width": 95,
        "conv_pos_groups": 16,
        "conv_pos_depth": 5,
        "conv_pos_pre_ln": False,
        "num_extra_tokens": 10,
        "init_extra_token_zero": True,
        "use_alibi_encoder": True,
        "alibi_scale": 1.0,
        "learned_alibi": False,
        "alibi_max_pos": None,
        "learned_alibi_scale": True,
        "learned_alibi_scale_per_head": True,
        "learned_alibi_scale_per_layer": False,
        "local_grad_mult": 1.0,
        "start_drop_path_rate": 0.0,
        "end_drop_path_rate": 0.0,
        "prenet_layerdrop": 0.0,
        "prenet_dropout": 0.1,
        "mask_prob": 0.55,
        "mask_length": 5,
        "mask_noise_std": 0.01,
        "decoder": {
            "decoder_dim": s["decoder_dim"],
            "decoder_groups": 16,
            "decoder_kernel": 7,
            "decoder_layers": 4,
            "input_dropout": 0.1,
            "add_positions_masked": False,
            "add_positions_all": False,
            "decoder_residual": True,
            "projection_layers": 1,
            "projection_ratio": 2.0,
        },
    }
    conf: dict[str, Any] = {
        "embed_dim": s["embed_dim"],
        "num_heads": s["num_heads"],
        "depth": s["depth"],
        "mlp_ratio": 4.0,
        "norm_eps": 1e-5,
        "norm_affine": True,
        "layer_norm_first": False,
        "normalize": True,
        "encoder_dropout": 0.1,
        "attention_dropout": 0.1,
        "activation_dropout": 0.0,
        "post_mlp_drop": 0.1,
        "dropout_input": 0.0,
        "layerdrop": 0.0,
        "end_of_block_targets": False,
        "start_drop_path_rate": 0.0,
        "end_drop_path_rate": 0.0,
        "average_top_k_layers": 16,
        "loss_beta": 0.0,
        "loss_scale": None,
        "clone_batch": 12,
        "supported_modality": "AUDIO",
        "modalities": {"audio": audio},
    }
    for key, value in changes.items():
        place, key = (audio, key[7:]) if key.startswith("audio__") else (conf, key)
        place[key] = value
    return conf


def random_state(conf: Mapping[str, Any], classes: int, seed: int, decoder: bool = True) -> dict[str, Any]:
    """Seeded tensors for ``conf``, by FunASR's names without ``d2v_model.``."""
    import torch

    from emotion_app.models.config import config_of
    from emotion_app.models.network import expected_shapes

    dice = torch.Generator().manual_seed(seed)
    shapes = expected_shapes(config_of(conf), classes)
    if decoder:
        shapes |= _decoder_shapes(conf)
    state: dict[str, Any] = {}
    for key, shape in shapes.items():
        noise = torch.empty(shape).normal_(generator=dice)
        if key.endswith("alibi_scale"):
            state[key] = torch.empty(shape).uniform_(-0.4, 1.9, generator=dice)
        elif key.endswith("extra_tokens"):
            state[key] = noise
        elif key.endswith(".bias") or len(shape) == 1:
            state[key] = noise * 0.05 if key.endswith("bias") else 1 + 0.2 * noise
        else:
            fan_in = noise[0].numel()
            state[key] = noise * (2.0 if "local_encoder" in key else 1.0) / fan_in**0.5
            if key.endswith("attn.qkv.weight"):
                state[key][: 2 * shape[1]] *= 1.5  # attention that prefers some frames
    state["proj.weight"] *= 3.0
    return state


def _decoder_shapes(conf: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    audio = conf["modalities"]["audio"]
    if audio.get("decoder") is None:
        return {}
    spec, dim = audio["decoder"], conf["embed_dim"]
    width, prefix = spec["decoder_dim"], "modality_encoders.AUDIO.decoder."
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(spec["decoder_layers"]):
        before = dim if i == 0 else width
        shapes[f"{prefix}blocks.{i}.0.weight"] = (width, before // spec["decoder_groups"], spec["decoder_kernel"])
        shapes[f"{prefix}blocks.{i}.0.bias"] = (width,)
    return shapes | {prefix + "proj.weight": (dim, width), prefix + "proj.bias": (dim,)}
