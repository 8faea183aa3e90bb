"""Masks to compare, and what IoU and a boundary are, by their definitions."""

import numpy as np
import torch
from refcocom_kernels import cpu, reference


def blobs(seed: int, n: int, size: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    made = []
    for _ in range(n):
        cy, cx, r = rng.uniform(0.3, 0.7) * size[0], rng.uniform(0.3, 0.7) * size[1], rng.uniform(2, 9)  # fmt: skip
        made.append(np.hypot(y - cy, x - cx) <= r)
    return made


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum() if (a | b).any() else 1.0


def edge(mask: np.ndarray) -> np.ndarray:
    distance = int(
        cpu.boundary_distance(np.array([mask.shape[0]]), np.array([mask.shape[1]])).item()
    )
    return reference.boundary(torch.from_numpy(mask), distance).numpy()
