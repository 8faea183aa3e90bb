"""Predictions and a store come in, integer counts go out: the only place that turns masks, logits or RLE into counts.

`counter.py` says what a counter does; `host.py` does it with NumPy and Numba, `device.py` with the torch operators.
Batches of prediction files reach them through `batches.py` (and `stream.py`, which copies to a device), stacks of a
training loop through `stacks.py`. `choose.py` takes the one for a device. Start at `counter.py`.
"""
