"""A store, a dataset or a run in, what a summary says about it out."""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from refcocom_gpu.scores.conventions import get_convention

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset
    from refcocom_gpu.store.store import MaskStore


def about_run(store: MaskStore, device: str | None = None) -> dict[str, Any]:
    """Return what a summary says of any run: its dataset, device and versions.

    Args:
        store: Ground truth.
        device: The device that counted; the store's by default.
    """
    return {
        "dataset": about_dataset(store.dataset),
        "device": device or store.device,
        "versions": dict(_versions()),
    }


def about_dataset(dataset: Dataset) -> dict[str, Any]:
    """Return what a summary says of the dataset that was scored."""
    return {
        "source": dataset.source,
        "name": dataset.name,
        "revision": dataset.revision,
        "split": dataset.split,
        "split_by": dataset.split_by,
        "fingerprint": dataset.fingerprint,
        "n_images": dataset.n_images,
        "n_samples": dataset.n_samples,
        "n_examples": dataset.n_examples,
        "n_dropped": dataset.n_dropped,
        "counts_as_published": dataset.counts_as_published,
    }


def missing(n: int, convention: str) -> str:
    """Say how many examples have no prediction, and what became of them; nothing where there are none.

    >>> missing(1200, "official"), missing(0, "official")
    ('1,200 missing, scored as empty', '')
    """
    how = "scored as empty" if get_convention(convention).counts_missing else "left out"
    return f"{n:,} missing, {how}" if n else ""


def left_out(predictions: Mapping[str, Any]) -> list[str]:
    """Say which predictions stand for no row of a result.

    Args:
        predictions: What the summary says of them.

    >>> left_out({"n_extra": 5236, "n_repeated": 0})
    ['5,236 predictions of examples that the dataset does not have were left out']
    """
    reasons = {
        "n_extra": "of examples that the dataset does not have",
        "n_repeated": "that repeat the mask of another",
    }
    return [
        f"{number:,} prediction{'s' if number > 1 else ''} {reason} "
        f"{'were' if number > 1 else 'was'} left out"
        for name, reason in reasons.items()
        if (number := predictions.get(name, 0))
    ]


@functools.cache
def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    for name in ("refcocom-gpu", "numpy", "numba", "torch", "pyarrow"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    return versions
