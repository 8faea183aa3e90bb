"""A Lightning trainer in, or the call stack; what makes it show a metric only a part of the examples out."""

from __future__ import annotations

import sys
from typing import Any

SANITY_CHECK = "the sanity check"


def limit_of(trainer: Any) -> str | None:
    """Return what limits the batches of the loop that a Lightning `Trainer` runs, in words; None for all batches."""
    if trainer.sanity_checking:
        return SANITY_CHECK
    if trainer.fast_dev_run:
        return "fast_dev_run"
    loop = "test" if trainer.testing else "train" if trainer.training else "val"
    name = f"limit_{loop}_batches"
    batches = getattr(trainer, name)
    # 1 means one batch, 1.0 means all.
    return name if isinstance(batches, int) or batches < 1.0 else None


def limit_here() -> str | None:
    """Return what limits the batches of the Lightning loop that calls this; None if nothing does, or nobody calls it.

    A metric has no reference to the trainer, and Lightning passes none when it computes what `self.log` was given. So
    the trainer is looked up on the call stack. This is only done when a score is incomplete.
    """
    packages = [sys.modules.get(name) for name in ("lightning.pytorch", "pytorch_lightning")]
    trainers = tuple(p.Trainer for p in packages if p is not None and hasattr(p, "Trainer"))
    frame = sys._getframe() if trainers else None
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, trainers):
            return limit_of(caller)
        frame = frame.f_back
    return None
