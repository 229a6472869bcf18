from pathlib import Path

import pytest
import yaml

from emotion_app.errors import ModelError
from emotion_app.models.config import parse_conv_spec, read_config, read_tokens
from emotion_app.testing import HUB_TOKENS, model_conf, write_checkpoint


def test_every_size_is_read_from_the_config(tmp_path: Path):
    config = read_config(write_checkpoint(tmp_path, "small", mlp_ratio=2.0, audio__num_extra_tokens=3), "x")
    assert (config.dim, config.heads, config.hidden, config.n_blocks, config.extra_tokens) == (96, 12, 192, 4, 3)
    assert config.pos_kernel == 19 and len(config.conv) == 7


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "[(512, 10, 5)] * 999999999",
        "[(512, 10)]",
        "[(1e9, 1, 1)]",
        "[(512, 10, 5)] + x",
        "",
        "[]",
        "(" * 500,
    ],
)
def test_a_conv_spec_is_never_evaluated(text: str):
    with pytest.raises((ValueError, SyntaxError, RecursionError, MemoryError)):
        parse_conv_spec(text)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": "Paraformer"}, "Paraformer"),
        ({"model_conf": None}, "config.yaml"),
        ({"model_conf": {k: v for k, v in model_conf("tiny").items() if k != "embed_dim"}}, "embed_dim"),
        ({"model_conf": model_conf("tiny", num_heads=5)}, "heads"),
        ({"model_conf": model_conf("tiny", audio__feature_encoder_spec="[(32, 10, 5)] * 2")}, "front end"),
        ({"model_conf": model_conf("tiny", audio__learned_alibi=True)}, "learned_alibi"),
        ({"model_conf": model_conf("tiny", audio__extractor_mode="default")}, "group norm"),
    ],
)
def test_a_config_that_does_not_fit_is_named(tmp_path: Path, change: dict, reason: str):
    base = {"model": "Emotion2vec", "model_conf": model_conf("tiny")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(base | change), encoding="utf-8")
    with pytest.raises(ModelError, match=reason) as caught:
        read_config(tmp_path, "x")
    assert caught.value.code == "MODEL_BROKEN"


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"a: [", b"", b"!!python/object/apply:os.system ['true']", b"x" * (2 << 20)]
)
def test_a_damaged_config_is_an_error_with_a_code(tmp_path: Path, content: bytes):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_config(tmp_path, "x")
    assert caught.value.code == "MODEL_BROKEN"


def test_labels_are_mapped_by_name(tmp_path: Path):
    tokens = ["unuse_0", *reversed(HUB_TOKENS), "unuse_1"]
    (tmp_path / "tokens.txt").write_text("\n".join(tokens), encoding="utf-8")
    assert read_tokens(tmp_path, "x") == (None, 8, 7, 6, 5, 4, 3, 2, 1, 0, None)


@pytest.mark.parametrize("tokens", ["calm/平静\n<unk>", "sad\n难过/sad", "unuse_0\nunuse_1", ""])
def test_labels_that_cannot_be_mapped_are_an_error(tmp_path: Path, tokens: str):
    (tmp_path / "tokens.txt").write_text(tokens, encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        read_tokens(tmp_path, "x")
    assert caught.value.code == "MODEL_BROKEN"
