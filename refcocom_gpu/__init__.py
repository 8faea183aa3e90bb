"""The exact, GPU-accelerated batch scorer for RefCOCO-M.

Importing this package imports neither torch nor Numba; each name below is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refcocom_gpu.comparison import ResultComparison as ResultComparison
    from refcocom_gpu.comparison import compare as compare
    from refcocom_gpu.dataset import Dataset as Dataset
    from refcocom_gpu.dataset import load_dataset as load_dataset
    from refcocom_gpu.errors import ComparisonError as ComparisonError
    from refcocom_gpu.errors import DataError as DataError
    from refcocom_gpu.errors import DatasetError as DatasetError
    from refcocom_gpu.errors import PredictionError as PredictionError
    from refcocom_gpu.errors import RefCOCOMError as RefCOCOMError
    from refcocom_gpu.errors import ResultsError as ResultsError
    from refcocom_gpu.errors import RLEError as RLEError
    from refcocom_gpu.errors import SyncError as SyncError
    from refcocom_gpu.errors import UsageError as UsageError
    from refcocom_gpu.hooks.data import ExpressionDataset as ExpressionDataset
    from refcocom_gpu.hooks.data import collate as collate
    from refcocom_gpu.hooks.metric import RefCOCOMMetric as RefCOCOMMetric
    from refcocom_gpu.predictions.writer import PredictionWriter as PredictionWriter
    from refcocom_gpu.results import Result as Result
    from refcocom_gpu.results import load_results as load_results
    from refcocom_gpu.scorer import score as score
    from refcocom_gpu.store import MaskStore as MaskStore

__version__ = "0.1.0"

_HOMES = {
    "ResultComparison": "comparison",
    "compare": "comparison",
    "Dataset": "dataset",
    "load_dataset": "dataset",
    "ComparisonError": "errors",
    "DataError": "errors",
    "DatasetError": "errors",
    "PredictionError": "errors",
    "RefCOCOMError": "errors",
    "ResultsError": "errors",
    "RLEError": "errors",
    "UsageError": "errors",
    "ExpressionDataset": "hooks.data",
    "collate": "hooks.data",
    "PredictionWriter": "predictions.writer",
    "Result": "results",
    "load_results": "results",
    "score": "scorer",
    "MaskStore": "store",
    "RefCOCOMMetric": "hooks.metric",
    "SyncError": "errors",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
