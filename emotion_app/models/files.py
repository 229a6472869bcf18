"""What a model's directory must hold; no torch here, so that a look at the disk stays quick."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

TEXTS = ("config.yaml", "tokens.txt")


def checkpoint_file(directory: Path) -> Path | None:
    """Weights file of a directory in the hub's layout: what configuration.json names, else ``model.pt``, or None."""
    try:
        content = json.loads((directory / "configuration.json").read_text(encoding="utf-8"))
        named = content["file_path_metas"]["init_param"]
    except (OSError, ValueError, KeyError, TypeError):
        named = None
    for name in (named, "model.pt", "model.safetensors"):
        if isinstance(name, str) and name == Path(name).name and (directory / name).is_file():
            return directory / name
    return None


def is_complete(directory: Path) -> bool:
    """Whether the directory holds everything that a model needs."""
    return all((directory / name).is_file() for name in TEXTS) and checkpoint_file(directory) is not None


def sha256_of(path: Path) -> str:
    """Hash of a file, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
