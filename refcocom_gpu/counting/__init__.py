"""Predictions and a store come in, integer counts go out: no other package turns masks, logits or RLE into counts.

Start at `counter.py`, which says what a counter does; `host.py` counts with NumPy and Numba, `device.py` with the torch
operators, and `backend.py` says what is asked of both. `measures.py` (`device_measures.py` on a device) counts for
metrics besides IoU. `batches.py` feeds counters with batches of prediction files (`stream.py` on a device), `stacks.py`
with the stacks of a training loop. `choose.py` makes the counter for a device.
"""
