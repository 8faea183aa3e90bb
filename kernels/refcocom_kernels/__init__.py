"""The counting kernels of `refcocom_gpu`: each op as naive torch, Numba and Triton, equal to the bit.

Arrays or tensors in, exact integers out. `reference.py` defines every op; start there. This package is a leaf: it never
imports `refcocom_gpu`, and importing it imports no torch, Numba or Triton.
"""
