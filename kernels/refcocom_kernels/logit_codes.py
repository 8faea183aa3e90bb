"""Codes that logit kernels share with their launchers: the type of the logits, and flags of an example."""

from __future__ import annotations

FLOAT32, FLOAT16, BFLOAT16 = 0, 1, 2
"""How the kernels read the bits of logits."""

NON_FINITE = 1
"""Flag of an example that holds NaN or infinity."""

UNIT_RANGE = 2
"""Flag of an example whose values all lie in 0…1, as probabilities do."""
