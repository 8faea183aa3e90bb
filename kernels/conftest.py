"""Doctests are looked for in every module; those of Triton can only be imported where it is."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("triton") else ["refcocom_kernels/cuda/*"]
