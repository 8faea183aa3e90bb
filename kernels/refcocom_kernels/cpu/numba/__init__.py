"""The Numba kernels: flat arrays and a range of rows in, counts written into an array of the caller.

Each module is launched by its namesake in `cpu/`. Importing one imports Numba. Start at `rle.py`; `jit.py` compiles and
caches kernels.
"""
