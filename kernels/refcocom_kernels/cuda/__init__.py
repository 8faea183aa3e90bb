"""Tensors on a CUDA device come in, integer counts go out: the Triton ops, one module each: kernel, then launcher.

`ops.py` calls the launchers. Importing a module imports Triton. Start at `masks.py`.
"""
