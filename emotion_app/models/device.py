"""Which device computes, and what it computes well."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from emotion_app.errors import ModelError

AMPERE = 8  # CUDA compute capability from which bf16 runs on the tensor cores


def pick(wanted: str) -> str:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:1`` -> ``cpu`` or ``cuda:N``.

    Raises:
        ModelError: ENGINE_UNAVAILABLE when that device is not here.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return "cpu"
    name = "cuda:0" if wanted in ("auto", "cuda") else wanted
    kind, _, number = name.partition(":")
    if kind != "cuda" or not number.isdigit():
        raise ModelError(
            "ENGINE_UNAVAILABLE", engine="torch", reason=f"device {wanted}: choose auto, cpu, cuda or cuda:N"
        )
    if not torch.cuda.is_available() or int(number) >= torch.cuda.device_count():
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise ModelError("ENGINE_UNAVAILABLE", engine="torch", reason=f"device {wanted}: {count} CUDA devices here")
    return name


def fast_precision(device: str) -> str | None:
    """The reduced precision that this device computes faster than fp32, or None.

    bf16 on a CPU with AMX or AVX512-BF16 and on Ampere or later, fp16 on older GPUs. Elsewhere bf16 is emulated.
    """
    if device == "cpu":
        return "bf16" if cpu_has_bf16() else None
    major, _ = torch.cuda.get_device_capability(device)
    return "bf16" if major >= AMPERE else "fp16"


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 matrices itself."""
    flags = cpu_flags()
    return bool(flags & {"amx_bf16", "avx512_bf16"}) and torch.backends.mkldnn.is_available()


def cpu_flags() -> frozenset[str]:
    """Instruction sets as Linux names them; empty where /proc/cpuinfo does not say."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.partition(":")[2].split())
    except OSError:
        pass  # not Linux
    return frozenset()


def describe(device: str) -> str:
    """One line for ``doctor`` and for the self-check's record."""
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()
