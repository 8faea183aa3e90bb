"""A device name in, a device that is there out."""

from __future__ import annotations

import ctypes

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
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number == "" or number.isdigit()):
        raise UsageError(f"device must be auto, cpu, cuda or cuda:i, not {device!r}")
    found = _cuda_devices() if _has_driver() else 0
    if int(number or 0) >= found:
        raise UsageError(
            f"device {device!r} is not there: {found} CUDA devices found; use device=cpu or device=auto"
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
