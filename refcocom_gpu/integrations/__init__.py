"""Answers or masks of models that run inside other frameworks in, their scores in the form of the framework out.

`evaluate` has the interface of Hugging Face `evaluate`, `lmms_eval` writes a task for lmms-eval, and `inspect_ai` has
samples and a scorer for Inspect. All read answers by `answers`, and count as `score` does. `python -m
refcocom_gpu.integrations` prints where a task lies.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refcocom_gpu.integrations import inspect_ai as inspect_ai
    from refcocom_gpu.integrations import lmms_eval as lmms_eval
    from refcocom_gpu.integrations.answers import AnswerJudge as AnswerJudge
    from refcocom_gpu.integrations.answers import scores_of as scores_of
    from refcocom_gpu.integrations.evaluate import MaskEvaluation as MaskEvaluation

_HOMES = {"AnswerJudge": "answers", "scores_of": "answers", "MaskEvaluation": "evaluate"}
_MODULES = ("inspect_ai", "lmms_eval")
__all__ = [*_HOMES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
