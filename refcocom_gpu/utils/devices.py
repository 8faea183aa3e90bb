"""A device name in, the name of an available device out."""

from __future__ import annotations

import ctypes
import re

from refcocom_gpu.errors import UsageError


def resolve_device(device: str) -> str:
    """Return the device if it is available; otherwise raise. Only `auto` falls back to the CPU.

    Args:
        device: `cpu`, `cuda`, `cuda:i`, or `auto`: the first CUDA device if there is one, else the CPU.

    Returns:
        `cpu`, `cuda` or `cuda:i`.

    Raises:
        UsageError: The name is not a device name, or the device is not available.

    >>> resolve_device("cpu")
    'cpu'
    """
    if device == "cpu":
        return device
    if device == "auto":
        # Importing torch takes seconds; without a driver there is nothing to ask it.
        return "cuda:0" if _has_driver() and _cuda_devices() > 0 else "cpu"
    match = re.fullmatch(r"cuda(?::([0-9]+))?", device)
    if match is None:
        raise UsageError(f"device must be auto, cpu, cuda or cuda:i, not {device!r}")
    n_devices = _cuda_devices() if _has_driver() else 0
    if int(match[1] or 0) >= n_devices:
        raise UsageError(
            f"device {device} is not there: {_explain(n_devices)}; "
            "use cpu, or auto to choose an available device"
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


def _cuda_devices() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _explain(n_devices: int) -> str:
    """Say which CUDA devices are available, or why none is."""
    if n_devices:
        return f"torch finds {n_devices} CUDA device{'s' if n_devices > 1 else ''}, numbered from 0"
    if not _has_driver():
        return "this machine has no CUDA driver"
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA"
    return f"torch {torch.__version__} finds no CUDA device"
