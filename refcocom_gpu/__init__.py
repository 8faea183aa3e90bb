"""The exact, GPU-accelerated batch scorer for RefCOCO-M.

Importing this package imports neither torch nor Numba; each name below is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from refcocom_gpu._version import __version__ as __version__

if TYPE_CHECKING:
    from refcocom_gpu import adapters as adapters
    from refcocom_gpu import integrations as integrations
    from refcocom_gpu.construct.call import construct as construct
    from refcocom_gpu.construct.truth_noise import TruthNoise as TruthNoise
    from refcocom_gpu.construct.truth_noise import truth_noise as truth_noise
    from refcocom_gpu.construct.versions import before_after as before_after
    from refcocom_gpu.dataset.table import Dataset as Dataset
    from refcocom_gpu.dataset.table import load_dataset as load_dataset
    from refcocom_gpu.errors import AnswerError as AnswerError
    from refcocom_gpu.errors import ComparisonError as ComparisonError
    from refcocom_gpu.errors import DataError as DataError
    from refcocom_gpu.errors import DatasetError as DatasetError
    from refcocom_gpu.errors import PredictionError as PredictionError
    from refcocom_gpu.errors import RefCOCOMError as RefCOCOMError
    from refcocom_gpu.errors import ResultsError as ResultsError
    from refcocom_gpu.errors import RLEError as RLEError
    from refcocom_gpu.errors import SyncError as SyncError
    from refcocom_gpu.errors import TagsError as TagsError
    from refcocom_gpu.errors import UsageError as UsageError
    from refcocom_gpu.predictions.convert import Conversion as Conversion
    from refcocom_gpu.predictions.convert import convert as convert
    from refcocom_gpu.predictions.writer import PredictionWriter as PredictionWriter
    from refcocom_gpu.report import plot as plot
    from refcocom_gpu.report.call import report as report
    from refcocom_gpu.report.export.call import export as export
    from refcocom_gpu.report.show import show as show
    from refcocom_gpu.scorer import score as score
    from refcocom_gpu.scores.comparison import ResultComparison as ResultComparison
    from refcocom_gpu.scores.comparison import compare as compare
    from refcocom_gpu.scores.publication import publish as publish
    from refcocom_gpu.scores.result import Result as Result
    from refcocom_gpu.scores.sweep_results import SweepResults as SweepResults
    from refcocom_gpu.scores.sweep_results import load_results as load_results
    from refcocom_gpu.store.match import DatasetMatch as DatasetMatch
    from refcocom_gpu.store.match import match_datasets as match_datasets
    from refcocom_gpu.store.store import MaskStore as MaskStore
    from refcocom_gpu.sweep.call import sweep as sweep
    from refcocom_gpu.training.data import ExpressionDataset as ExpressionDataset
    from refcocom_gpu.training.data import collate as collate
    from refcocom_gpu.training.metric import RefCOCOMMetric as RefCOCOMMetric

_HOMES = {
    "ResultComparison": "scores.comparison",
    "compare": "scores.comparison",
    "Dataset": "dataset.table",
    "load_dataset": "dataset.table",
    "AnswerError": "errors",
    "ComparisonError": "errors",
    "DataError": "errors",
    "DatasetError": "errors",
    "PredictionError": "errors",
    "RefCOCOMError": "errors",
    "ResultsError": "errors",
    "RLEError": "errors",
    "TagsError": "errors",
    "UsageError": "errors",
    "ExpressionDataset": "training.data",
    "collate": "training.data",
    "Conversion": "predictions.convert",
    "convert": "predictions.convert",
    "PredictionWriter": "predictions.writer",
    "publish": "scores.publication",
    "Result": "scores.result",
    "SweepResults": "scores.sweep_results",
    "load_results": "scores.sweep_results",
    "export": "report.export.call",
    "score": "scorer",
    "DatasetMatch": "store.match",
    "match_datasets": "store.match",
    "MaskStore": "store.store",
    "RefCOCOMMetric": "training.metric",
    "SyncError": "errors",
    "TruthNoise": "construct.truth_noise",
    "truth_noise": "construct.truth_noise",
    "before_after": "construct.versions",
    "show": "report.show",
}
_MODULES = {
    "adapters": "adapters",
    "construct": "construct",
    "integrations": "integrations",
    "plot": "report.plot",
    "report": "report",
    "sweep": "sweep",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{_MODULES[name]}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, *_MODULES])
