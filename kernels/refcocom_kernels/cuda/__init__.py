"""The Triton ops: tensors on a CUDA device in, integer counts out. One module each: kernels, then launcher.

`ops.py` calls the launchers. Importing a module imports Triton. Start at `masks.py`.
"""
