"""The real size: 12 blocks, 164 M parameters, seeded weights. One test, because each engine holds the weights."""

import gc
from pathlib import Path

from emotion_app.models.loader import load_model
from emotion_app.settings import Settings
from emotion_app.testing import write_checkpoint
from tests.parity.conftest import Pair, compare
from tests.voices import voice


def test_the_full_large_size_agrees_with_funasr(tmp_path: Path):
    directory = write_checkpoint(tmp_path / "large", "large")
    settings = Settings(models_dir=tmp_path / "models", precision="fp32", threads=2, offline=True)
    ours = load_model(str(directory), settings)
    theirs = load_model(str(directory), settings.model_copy(update={"engine": "funasr"}))
    assert ours.info.dim == 1024
    assert 164.0e6 < sum(p.numel() for p in theirs._model.model.parameters()) < 164.1e6
    try:
        for seconds in (0.5, 3.0, 10.0):
            scores, embedding = compare(Pair(ours, theirs, directory), voice(seconds, 2))
            assert scores < 1e-5 and embedding < 1e-4, seconds
    finally:
        del ours, theirs
        gc.collect()
        for file in tmp_path.rglob("*"):  # 1.3 GB: pytest would keep it for three runs
            if file.suffix in {".pt", ".safetensors"}:
                file.unlink()
