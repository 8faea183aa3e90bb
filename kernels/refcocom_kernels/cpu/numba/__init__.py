"""Flat arrays and a range of rows come in, counts are written into an array that the caller made: the Numba kernels.

Each module is launched by the one of its name in `cpu/`. Importing one imports Numba. Start at `rle.py`; `jit.py` says
how kernels are compiled and cached.
"""
