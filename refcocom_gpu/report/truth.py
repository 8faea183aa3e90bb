"""A result in, the true masks that it was scored against out, or why they are not at hand."""

from __future__ import annotations

from pathlib import Path

from refcocom_gpu.dataset.table import Dataset, load_dataset
from refcocom_gpu.errors import DatasetError, UsageError
from refcocom_gpu.scores.result import Result
from refcocom_gpu.store.store import MaskStore, as_store

Truth = MaskStore | Dataset | str | Path


def truth_of(result: Result, given: Truth | None = None) -> tuple[MaskStore | None, str]:
    """Return the true masks of a result's examples.

    Args:
        result: Of any convention.
        given: The dataset or its store, or its name or path; None loads the one that the result names.

    Returns:
        The store, and an empty text; or None, and why there is none.

    Raises:
        UsageError: The dataset that was given is another one.

    >>> import refcocom_gpu as rc
    >>> store, problem = truth_of(rc.score("sample", "sample"))
    >>> len(store), problem
    (297, '')
    """
    about = result.info.get("dataset", {})
    if given is None:
        try:
            given = load_dataset(about["source"], revision=about["revision"], split=about["split"])
        except KeyError:
            return None, "the result does not say which dataset it is of"
        except (UsageError, DatasetError) as error:
            return None, f"the dataset of the result cannot be loaded: {error}"
        if given.fingerprint != about.get("fingerprint"):
            return None, f"{about['source']} has changed since it was scored"
    store = as_store(given)
    if store.dataset.fingerprint != about.get("fingerprint", store.dataset.fingerprint):
        raise UsageError(
            f"the result is not one of {store.dataset.source}: their fingerprints differ"
        )
    return store, ""
