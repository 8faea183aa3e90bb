"""Boundary measures in plain loops, from their definitions alone; nothing here calls the package."""

import numpy as np

COLUMNS = [
    "boundary_intersection", "pred_boundary", "target_boundary", "contour_pred", "contour_target",
    "contour_pred_matched", "contour_target_matched",
]  # fmt: skip


def pixels(mask: np.ndarray, ratio: float) -> int:
    """A share of the diagonal, at least one pixel."""
    return max(1, round(ratio * float(np.sqrt(mask.shape[0] ** 2 + mask.shape[1] ** 2))))


def eroded(mask: np.ndarray, times: int) -> np.ndarray:
    """3×3 erosion, with a border of zeros."""
    height, width = mask.shape
    for _ in range(times):
        padded = np.pad(mask, 1)
        mask = np.ones_like(mask)
        for dy in range(3):
            for dx in range(3):
                mask = mask & padded[dy : dy + height, dx : dx + width]
    return mask


def near(mask: np.ndarray, reach: int) -> np.ndarray:
    """Pixels whose square of (2·reach + 1)² holds a set pixel."""
    found = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        found[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1] = True
    return found


def row(pred: np.ndarray, target: np.ndarray) -> list[int]:
    """The seven columns of one example."""
    distance, reach = pixels(target, 0.02), pixels(target, 0.008)
    edge, true_edge = pred & ~eroded(pred, distance), target & ~eroded(target, distance)
    line, true_line = pred & ~eroded(pred, 1), target & ~eroded(target, 1)
    counted = [
        edge & true_edge, edge, true_edge, line, true_line, line & near(true_line, reach),
        true_line & near(line, reach),
    ]  # fmt: skip
    return [int(each.sum()) for each in counted]


def boundary_iou(counts: list[int]) -> float:
    intersection, pred, target = counts[:3]
    return intersection / (pred + target - intersection) if pred + target else 1.0


def f_measure(counts: list[int]) -> float:
    line, true_line, matched, true_matched = counts[3:]
    if not line or not true_line:
        return float(line == true_line)
    precision, recall = matched / line, true_matched / true_line
    return 2 * precision * recall / (precision + recall) if matched and true_matched else 0.0
