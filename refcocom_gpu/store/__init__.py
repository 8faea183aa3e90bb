"""A dataset comes in; its masks go out as runs and packed bits, cached on disk, in host memory or on a device.

Start at `store.py`, which parses and caches the masks. `device.py` holds the same arrays as tensors. `match.py` finds
the examples of one dataset in another one, by masks and texts.
"""
