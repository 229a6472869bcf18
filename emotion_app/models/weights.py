"""Checkpoint files -> checked tensors -> safetensors beside a record: converted once, read quickly ever after."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emotion_app.errors import ModelError, StoreError
from emotion_app.labels import KEYS
from emotion_app.models.config import NetworkConfig, read_config, read_tokens
from emotion_app.models.files import TEXTS, checkpoint_file, is_complete, sha256_of
from emotion_app.models.network import AUDIO, dtype_of, expected_shapes
from emotion_app.models.stored import StoredState

FORMAT = 1  # of the converted directory; another number is converted again
WEIGHTS = {"fp32": "network.safetensors", "bf16": "network.bf16.safetensors", "fp16": "network.fp16.safetensors"}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PREFIXES = ("", "d2v_model.", "module.", "module.d2v_model.", "model.")
WRAPPERS = ("state_dict", "model_state_dict", "model")
HEAD = ("proj.weight", "proj.bias")


@dataclass(frozen=True)
class Record:
    """Where converted weights came from; ``record.json`` beside them.

    ``sha256`` is that of the checkpoint file, ``files`` holds size and sha256 of each converted file.
    """

    name: str
    source: str
    sha256: str
    revision: str | None
    hub: str | None
    parameters: int
    left_out: int
    created: str
    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    format: int = FORMAT


@dataclass(frozen=True)
class Checkpoint:
    """Converted weights, ready to be read."""

    directory: Path
    record: Record
    config: NetworkConfig
    rows: tuple[int | None, ...]


def read_state(path: Path, config: NetworkConfig, classes: int, name: str) -> tuple[dict[str, Tensor], int]:
    """Tensors of a checkpoint by FunASR's names, float32, checked; and how many others were left out.

    Pickles are read with ``weights_only=True`` and nothing else: a file that needs more is refused.

    Raises:
        ModelError: MODEL_BROKEN with the reason.
    """
    found = _unwrap(_read_tensors(path, name), name)
    wanted = expected_shapes(config, classes)
    prefix = _prefix(found, config)
    state: dict[str, Tensor] = {}
    for key, shape in wanted.items():
        tensor = found.get(prefix + key, found.get(key))
        if not isinstance(tensor, Tensor):
            what = "no emotion head" if key in HEAD else f"no tensor {key}"
            raise ModelError("MODEL_BROKEN", name=name, reason=f"{path.name} has {what}")
        if key == AUDIO + "alibi_scale" and tensor.dim() == 4:
            tensor = tensor.unsqueeze(0)  # older checkpoints lack the layer axis
        if tuple(tensor.shape) != shape:
            raise ModelError(
                "MODEL_BROKEN", name=name, reason=f"{key} has shape {tuple(tensor.shape)}, config.yaml asks for {shape}"
            )
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise ModelError("MODEL_BROKEN", name=name, reason=f"{key} holds values that are not finite numbers")
        state[key] = tensor.float().contiguous()
    return state, len(found) - len(state)


def _read_tensors(path: Path, name: str) -> Any:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        try:
            return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            return torch.load(
                path, map_location="cpu", weights_only=True
            )  # the format before torch 1.6 cannot be mapped
    except MemoryError as error:
        raise ModelError("OUT_OF_MEMORY") from error
    except Exception as error:  # the unpickler raises nearly anything on damaged bytes
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError("MODEL_BROKEN", name=name, reason=f"{path.name} cannot be read: {reason}") from error


def _unwrap(content: Any, name: str) -> Mapping[str, Any]:
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise ModelError("MODEL_BROKEN", name=name, reason="the checkpoint holds no tensors")
    return content


def _prefix(found: Mapping[str, Any], config: NetworkConfig) -> str:
    """What stands in front of the encoder's names."""
    probe = f"{AUDIO}project_features.2.weight"
    return next((prefix for prefix in PREFIXES if prefix + probe in found), "")


def convert(
    source: Path, root: Path, name: str, revision: str | None = None, hub: str | None = None, origin: str | None = None
) -> Checkpoint:
    """Converted weights of the checkpoint in ``source``: found under ``root``, or made there once.

    The directory's name holds the hash of weights, config and tokens, and it appears by one rename: two processes
    may convert at once, and a kill leaves nothing that looks finished.

    Raises:
        ModelError: MODEL_MISSING or MODEL_BROKEN.
        StoreError: DISK_FULL or CANNOT_SAVE.
    """
    weights = checkpoint_file(source)
    if weights is None or not is_complete(source):
        missing = [t for t in (*TEXTS, "model.pt") if not (source / t).is_file()]
        raise ModelError("MODEL_BROKEN", name=name, reason=f"{source.name} lacks {', '.join(missing)}")
    config, rows = read_config(source, name), read_tokens(source, name)
    sha256 = _remembered_hash(weights, root) or _hash_and_remember(weights, root)
    home = _home(source, root, name, sha256)
    ready = read_converted(home)
    if ready is not None:
        return ready
    state, left_out = read_state(weights, config, len(rows), name)
    record = Record(
        name,
        origin or source.name,
        sha256,
        revision,
        hub,
        sum(t.numel() for t in state.values()),
        left_out,
        datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    _publish(home, state, record, source)
    return Checkpoint(home, _read_record(home) or record, config, rows)


def find_converted(source: Path, root: Path, name: str) -> Checkpoint | None:
    """Converted weights of ``source`` when they were made before; hashes nothing, writes nothing."""
    weights = checkpoint_file(source)
    sha256 = _remembered_hash(weights, root) if weights is not None and is_complete(source) else None
    return read_converted(_home(source, root, name, sha256)) if sha256 else None


def _home(source: Path, root: Path, name: str, sha256: str) -> Path:
    texts = [(source / text).read_text(encoding="utf-8", errors="replace") for text in TEXTS]
    key = hashlib.sha256("\0".join([sha256, *texts]).encode()).hexdigest()
    return root / "converted" / f"{_plain(name)}-{key[:16]}"


def read_converted(home: Path) -> Checkpoint | None:
    """Converted weights in ``home``, or None when they are not there, incomplete or of another format."""
    record = _read_record(home)
    if record is None or record.format != FORMAT:
        return None
    for name, (size, _) in record.files.items():
        if not (home / name).is_file() or (home / name).stat().st_size != size:
            return None
    return Checkpoint(home, record, read_config(home, record.name), read_tokens(home, record.name))


def labels_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Keys of the classes that the checkpoint can answer, in the order of ``labels.EMOTIONS``."""
    return tuple(KEYS[i] for i in sorted(i for i in checkpoint.rows if i is not None))


def load_state(checkpoint: Checkpoint, precision: str) -> StoredState:
    """The weights in the precision asked for; a reduced one is written beside the full one at its first use.

    Raises:
        ModelError: MODEL_BROKEN.
    """
    full = _open(checkpoint.directory / WEIGHTS["fp32"], checkpoint.record.name)
    if precision == "fp32":
        return full
    path = checkpoint.directory / WEIGHTS[precision]
    try:
        reduced = StoredState(path)
        if set(reduced) == set(full):
            return reduced
    except (ValueError, OSError, KeyError, TypeError):
        path.unlink(missing_ok=True)  # not made yet, or damaged
    _save({key: tensor.to(dtype_of(key, DTYPES[precision])) for key, tensor in full.items()}, path)
    return _open(path, checkpoint.record.name)


def _open(path: Path, name: str) -> StoredState:
    try:
        return StoredState(path)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise ModelError("MODEL_BROKEN", name=name, reason=f"{path}: {error}") from error


def _publish(home: Path, state: dict[str, Tensor], record: Record, source: Path) -> None:
    aside = home.with_name(f".partial-{uuid.uuid4().hex}")
    try:
        aside.mkdir(parents=True)
        for text in TEXTS:
            shutil.copyfile(source / text, aside / text)
        _save(state, aside / WEIGHTS["fp32"])
        size = (aside / WEIGHTS["fp32"]).stat().st_size
        files = {WEIGHTS["fp32"]: (size, sha256_of(aside / WEIGHTS["fp32"]))}
        write_text(aside / "record.json", json.dumps(asdict(record) | {"files": files}, ensure_ascii=False, indent=1))
        if home.exists() and read_converted(home) is None:  # of another format, or damaged: make room
            os.rename(home, home.with_name(f".partial-{uuid.uuid4().hex}"))
        try:
            os.rename(aside, home)
        except OSError:
            if read_converted(home) is None:
                raise
    except OSError as error:
        raise _write_error(error, home) from error
    finally:
        for left in home.parent.glob(".partial-*"):
            if left == aside or _age_s(left) > 3600:  # of a killed process: nobody converts for an hour
                shutil.rmtree(left, ignore_errors=True)


def _save(state: dict[str, Tensor], path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    aside = path.with_name(f".partial-{uuid.uuid4().hex}")
    try:
        try:
            save_file(state, aside)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        os.rename(aside, path)
    except OSError as error:
        raise _write_error(error, path) from error
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small file so that it is there whole or not at all."""
    aside = path.with_name(f".partial-{uuid.uuid4().hex}")
    try:
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise _write_error(error, path) from error


def _write_error(error: OSError, path: Path) -> StoreError:
    parent = next((p for p in path.parents if p.exists()), Path.cwd())
    free_mb = shutil.disk_usage(parent).free / 1e6
    if error.errno == 28 or free_mb < 10:  # ENOSPC
        return StoreError("DISK_FULL", free_mb=free_mb, path=str(parent))
    return StoreError("CANNOT_SAVE", reason=f"{path}: {error.strerror or error}")


def _read_record(home: Path) -> Record | None:
    try:
        content = json.loads((home / "record.json").read_text(encoding="utf-8"))
        content["files"] = {name: (int(size), str(sha)) for name, (size, sha) in content["files"].items()}
        return Record(**content)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _hash_place(weights: Path, root: Path) -> Path:
    stat = weights.stat()
    mark = f"{weights.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    return root / "converted" / "hashes" / f"{hashlib.sha256(mark.encode()).hexdigest()[:32]}.txt"


def _remembered_hash(weights: Path, root: Path) -> str | None:
    """Hash of the checkpoint as remembered by path, size and time, so that a start need not read 1.9 GB."""
    try:
        known = _hash_place(weights, root).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return known if len(known) == 64 else None


def _hash_and_remember(weights: Path, root: Path) -> str:
    digest, place = sha256_of(weights), _hash_place(weights, root)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _write_error(error, place) from error
    write_text(place, digest)
    return digest


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip(".-")[:60] or "model"


def _age_s(path: Path) -> float:
    import time

    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
