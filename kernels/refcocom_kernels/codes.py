"""Codes that kernels share with their launchers: the type of logits, and what the values of a prediction look like."""

from __future__ import annotations

FLOAT32, FLOAT16, BFLOAT16 = 0, 1, 2
"""How the kernels read the bits of logits."""

NON_FINITE, SIGNED, LARGE, BINARY, ZERO, SOFT = range(1, 7)
"""What the values of a float prediction look like; the first that holds:

- `NON_FINITE`: NaN or infinity is among them.
- `SIGNED`: a value is clearly negative, as logits are: below −`CLEAR` times the largest magnitude, or times 1 if that
  is less.
- `LARGE`: the largest magnitude is clearly above 1: above 1 + `CLEAR`.
- `BINARY`: all are exactly 0 or 1, and a 1 is among them.
- `ZERO`: all are 0.
- `SOFT`: anything else: about 0…1, as probabilities are.
"""

CLEAR = 0.5
"""How far from 0…1 a value is clearly no probability. A bicubic resize of a mask overshoots by 0.45 at the most
(a = −0.75: one axis −0.19…1.19), by 0.1 at a straight edge; Lanczos by less."""

FAINT = 2.0**-20
"""Arrays whose largest magnitude is below this hold the noise of some arithmetic, whose sign says nothing."""
