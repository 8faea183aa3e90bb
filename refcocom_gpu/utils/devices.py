"""A device name in, a device that is there out."""

from __future__ import annotations

import ctypes
import re

from refcocom_gpu.errors import UsageError


def resolve_device(device: str) -> str:
    """Check a device, or choose one.

    Args:
        device: `cpu`, `cuda`, `cuda:i`, or `auto`: the first CUDA device where there is one, else the CPU.

    Returns:
        `cpu`, `cuda` or `cuda:i`.

    Raises:
        UsageError: When a device was asked for and is not there. Only `auto` falls back.

    >>> resolve_device("cpu")
    'cpu'
    """
    if device == "cpu":
        return device
    if device == "auto":
        # Importing torch takes seconds; without a driver there is nothing to ask it.
        return "cuda:0" if _has_driver() and _cuda_devices() > 0 else "cpu"
    asked = re.fullmatch(r"cuda(?::([0-9]+))?", device)
    if asked is None:
        raise UsageError(f"device must be auto, cpu, cuda or cuda:i, not {device!r}")
    found = _cuda_devices() if _has_driver() else 0
    if int(asked[1] or 0) >= found:
        raise UsageError(
            f"device {device} is not there: {_what_is_there(found)}; use cpu, or auto to take what there is"
        )
    return device


def _has_driver() -> bool:
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


def _what_is_there(found: int) -> str:
    if found:
        return f"torch finds {found} CUDA device{'s' if found > 1 else ''}, numbered from 0"
    if not _has_driver():
        return "this machine has no CUDA driver"
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA"
    return f"torch {torch.__version__} finds no CUDA device"


def _cuda_devices() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
