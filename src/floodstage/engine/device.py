"""What the process asks of the machine it runs on."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from time import perf_counter

import torch

from floodstage.core.errors import ConfigError, unknown
from floodstage.core.protocols import Clock

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks instead of giving each back to the system.

    Large tensors come and go in every pass; giving them back means faulting their pages in again,
    which on some virtual machines takes longer than the arithmetic. Does nothing elsewhere.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        most = 1 << 30
        mallopt(_M_MMAP_THRESHOLD, most)
        mallopt(_M_TRIM_THRESHOLD, most)


def prepare(name: str, threads: int) -> torch.device:
    """Set the process up for heavy work on the device called `name`."""
    device = device_of(name)
    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory()
    return device


def device_of(name: str) -> torch.device:
    """The device called `name`. Raises ConfigError if this machine has none such."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": _has_mps()}
    if name == "auto":
        return torch.device(next(n for n in ("cuda", "mps", "cpu") if there[n]))
    kind = name.split(":")[0]
    if kind not in there:
        raise unknown("device", name, ["auto", *there])
    if not there[kind]:
        raise ConfigError(f"The device {name!r} is not available to this torch: use 'cpu'.")
    return torch.device(name)


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


def free_memory(device: torch.device) -> int | None:
    """Bytes that could still be taken there; None where nobody says."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        known = dict(line.split(":", 1) for line in lines)
        return int(known["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def dtype_of(name: str, device: torch.device) -> torch.dtype:
    """fp32 on a CPU and bf16 on a GPU for "auto"."""
    if name == "auto":
        return DTYPES["bf16"] if device.type == "cuda" else DTYPES["fp32"]
    if name not in DTYPES:
        raise unknown("dtype", name, ["auto", *DTYPES])
    return DTYPES[name]


def clock_of(device: torch.device) -> Clock:
    """Seconds; on an accelerator after it has finished what it was given."""
    if device.type == "cuda":

        def after_cuda() -> float:
            torch.cuda.synchronize(device)
            return perf_counter()

        return after_cuda
    if device.type == "mps":

        def after_mps() -> float:
            torch.mps.synchronize()
            return perf_counter()

        return after_mps
    return perf_counter
