"""Settings that numpy's and torch's libraries read when they are first loaded. Import this before them."""

from __future__ import annotations

import os

KERNELS_KEPT = "64"  # compiled kernels by shape: more than one pass of the large model needs


def calm_threads() -> None:
    """Quiet threads and bounded caches; what the environment already says is kept.

    - Idle OpenMP threads sleep instead of spin: on two cores shared with others, a 1 s clip took 1.90 s with libgomp's
      default and 0.24 s so.
    - numpy computes in the thread that asks: the speech detector's products are so small that a second thread mostly
      waited, a fifth of a core with 16 live streams (torch has threads of its own).
    - oneDNN and torch keep a compiled kernel for each tensor shape, 1,024 of them by default: 660 clips of mixed
      lengths took the embedded model from 444 to 720 MB and on; with bounded caches it stays level.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNELS_KEPT)
    os.environ.setdefault("LRU_CACHE_CAPACITY", KERNELS_KEPT)


calm_threads()
