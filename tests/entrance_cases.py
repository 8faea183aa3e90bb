"""Predictions that must be refused everywhere, with the words of the message; and predictions with their masks."""

import io
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from entrances import TRUTH, grey_png
from helpers import coco_encode
from PIL import Image
from refcocom_kernels import reference
from scipy.ndimage import gaussian_filter

EXAMPLES = range(len(TRUTH))
MASKS = [np.roll(mask, (3, -4), (0, 1)) for mask in TRUTH]
SIGMA = 3
SOFT = [gaussian_filter(mask.astype(np.float32), SIGMA) for mask in MASKS]
"""About 0 to 1; a threshold anywhere in it gives another mask."""


def each(make: Callable[[int], Any]) -> dict[int, Any]:
    return {index: make(index) for index in EXAMPLES}


def scaled(index: int, kind: Any) -> np.ndarray:
    """A soft mask as integers that use the whole range."""
    peak = SOFT[index] / SOFT[index].max()
    return np.round(peak * np.iinfo(kind).max).astype(kind)


def fields(index: int, cells: tuple[int, int] = (24, 32)) -> np.ndarray:
    """Logits of another resolution than the image."""
    return np.random.default_rng(index).normal(0, 3, cells).astype(np.float32)


def resized(values: Any, index: int, threshold: float = 0.0) -> np.ndarray:
    """The mask of floats of any size by the naive definition."""
    values = torch.as_tensor(values).float()
    return (reference.resize_logits(values, *TRUTH[index].shape) > threshold).numpy()


def labels(index: int) -> np.ndarray:
    """A map of 0, 3 and 7: the mask is 3."""
    other = np.roll(TRUTH[index], 30, 1)
    return (other * 7 * ~MASKS[index] + MASKS[index] * 3).astype(np.uint8)


def encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def palette(indices: np.ndarray, *colours: tuple[int, int, int], **info: Any) -> Image.Image:
    picture = Image.fromarray(indices.astype(np.uint8), "L")
    picture = picture.convert("L")
    picture.putpalette([channel for colour in colours for channel in colour])
    picture.info.update(info)
    return picture


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def with_first(values: dict[int, Any], value: float) -> dict[int, Any]:
    """One value somewhere in one prediction."""
    changed = values[4].copy()
    changed[2, 3] = value
    return {**values, 4: changed}


# Refused ------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """Predictions, the options they come with, and the words of the message or the masks that are counted."""

    values: Callable[[], dict[int, Any]]
    options: dict[str, Any]
    expected: Any


UNDECLARED = ("undeclared values", "values=probabilities", "values=logits")
SEVERAL = ("several values", "values=probabilities", "label=")
BEYOND = ("not probabilities", "0…1", "values=logits")
PROBABILITIES = {"values": "probabilities"}
SIGNS = ("negative values", "mask > 0")
SHORT = ("wrong size", "the image is", "resize_masks=nearest")


def tensors(make: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], dict[int, Any]]:
    def values() -> dict[int, Any]:
        with warnings.catch_warnings():
            # torch warns of kinds of tensors that it will drop, or has only begun.
            warnings.simplefilter("ignore")
            return each(lambda k: make(torch.from_numpy(MASKS[k].astype(np.float32))))

    return values


def soft_palette(k: int) -> Image.Image:
    return Image.fromarray(scaled(k, np.uint8)).convert("RGB").quantize(16)


REFUSED = {
    "soft 8-bit picture": Case(
        lambda: each(lambda k: Image.fromarray(scaled(k, np.uint8))), {}, SEVERAL
    ),
    "soft uint8": Case(lambda: each(lambda k: scaled(k, np.uint8)), {}, SEVERAL),
    "soft uint16": Case(lambda: each(lambda k: scaled(k, np.uint16)), {}, SEVERAL),
    "one soft among masks": Case(lambda: {**each(MASKS.__getitem__), 4: scaled(4, np.uint8)}, {}, SEVERAL),
    **{
        f"signs, {np.dtype(kind)}": Case(
            lambda kind=kind: each(lambda k: np.where(MASKS[k], 1, -1).astype(kind)), {}, SIGNS
        )
        for kind in (np.int8, np.int16, np.int32, np.int64)
    },
    "labels": Case(lambda: each(labels), {}, ("several values", "label=")),
    "label nowhere": Case(lambda: each(labels), {"label": 9}, ("no labels", "label=9")),
    "a row short, bool": Case(lambda: each(lambda k: MASKS[k][:-1]), {}, SHORT),
    "a row short, 0/255": Case(
        lambda: each(lambda k: MASKS[k][:-1] * np.uint8(255)), {}, SHORT
    ),
    "a row short, declared": Case(
        lambda: each(lambda k: MASKS[k][:-1] * np.uint8(255)), PROBABILITIES,
        ("wrong size", "resize_masks=nearest"),
    ),
    "turned": Case(
        lambda: each(lambda k: np.ascontiguousarray(MASKS[k].T)), {}, ("wrong size", "swapped")
    ),
    "probabilities": Case(lambda: each(lambda k: SOFT[k]), {}, UNDECLARED),
    "probabilities, float16": Case(lambda: each(lambda k: SOFT[k].astype(np.float16)), {}, UNDECLARED),
    "probabilities, float64": Case(lambda: each(lambda k: SOFT[k].astype(np.float64)), {}, UNDECLARED),
    "probabilities, bfloat16": Case(
        lambda: each(lambda k: torch.from_numpy(SOFT[k]).bfloat16()), {}, UNDECLARED
    ),
    "low probabilities": Case(lambda: each(lambda k: sigmoid(fields(k))), {}, UNDECLARED),
    "low probabilities, float16": Case(
        lambda: each(lambda k: sigmoid(fields(k)).astype(np.float16)), {}, UNDECLARED
    ),
    "low 0.0/1.0": Case(lambda: each(lambda k: (fields(k) > 0).astype(np.float32)), {}, UNDECLARED),
    "probabilities to 1.0000001": Case(
        lambda: with_first(each(lambda k: SOFT[k]), np.nextafter(np.float32(1), np.float32(2))),
        {}, UNDECLARED,
    ),
    "probabilities that overshoot": Case(
        lambda: with_first(each(lambda k: SOFT[k] * 1.16 - 0.08), 1.08), {}, UNDECLARED
    ),
    "declared, to 255": Case(lambda: each(lambda k: SOFT[k] * 255), PROBABILITIES, BEYOND),
    "declared, to 100": Case(lambda: each(lambda k: SOFT[k] * 100), PROBABILITIES, BEYOND),
    "logits as probabilities": Case(lambda: each(fields), PROBABILITIES, BEYOND),
    "adaptive palette": Case(
        lambda: each(soft_palette), {}, ("palette", "values=probabilities", "label=K")
    ),
    "JPEG under .png": Case(
        lambda: each(lambda k: encoded(Image.fromarray(MASKS[k] * np.uint8(255)), "JPEG")), {},
        ("not a PNG image",),
    ),
    "GIF under .png": Case(
        lambda: each(lambda k: encoded(Image.fromarray(MASKS[k] * np.uint8(255)), "GIF")), {},
        ("not a PNG image",),
    ),
    "colour picture": Case(
        lambda: each(lambda k: Image.fromarray(MASKS[k][..., None] * np.uint8([255, 0, 0]))), {},
        ("one channel", "RGB", "colours differ"),
    ),
    "quiet map": Case(
        lambda: {**each(lambda k: scaled(k, np.uint8)), 2: MASKS[2].astype(np.uint8)}, PROBABILITIES,
        ("ambiguous values", "half of the maximum"),
    ),
    **{
        f"{value}, {np.dtype(kind)}": Case(
            lambda value=value, kind=kind: with_first(each(lambda k: fields(k).astype(kind)), value),
            {}, ("non-finite", "NaN, infinity"),
        )
        for value, kind in ((np.nan, np.float16), (np.inf, np.float16), (-np.inf, np.float32), (1e39, np.float64))
    },
    "complex": Case(lambda: each(lambda k: MASKS[k].astype(np.complex64)), {}, ("complex64",)),
    "text": Case(lambda: each(lambda k: MASKS[k].astype("<U1")), {}, ("<U1",)),
    "objects": Case(lambda: each(lambda k: MASKS[k].astype(object)), {}, ("object|pickle",)),
    "bool, label": Case(
        lambda: each(MASKS.__getitem__), {"label": 3}, ("no labels", "label=3")
    ),
    "floats, label": Case(
        lambda: each(fields), {"label": 3}, ("no labels", "label=3")
    ),
    # A prediction with two faults shows the first.
    "labels, a row short": Case(lambda: each(lambda k: labels(k)[:-1]), {}, ("several values",)),
    "signs, a row short": Case(
        lambda: each(lambda k: np.where(MASKS[k], 1, -1)[:-1]), {}, ("negative values",)
    ),
    "bool, a row short, label": Case(
        lambda: each(lambda k: torch.from_numpy(MASKS[k][:-1])), {"label": 3}, ("no labels", "label=3 is looked for")
    ),
    "NaN, label": Case(
        lambda: with_first(each(fields), np.nan), {"label": 3}, ("no labels", "label=3 is looked for")
    ),
    "quantized": Case(
        tensors(lambda t: torch.quantize_per_tensor(t, 1.0, 0, torch.quint8)), {},
        ("quantized", r"dequantize\(\)"),
    ),
    "sparse": Case(tensors(lambda t: t.to_sparse()), {}, ("sparse", r"to_dense\(\)")),
    "meta": Case(tensors(lambda t: t.to("meta")), {}, ("meta",)),
    "nested": Case(
        tensors(lambda t: torch.nested.nested_tensor([t], layout=torch.strided)), {}, ("nested",)
    ),
}  # fmt: skip


# Accepted -----------------------------------------------------------------------------------------


def own(index: int) -> np.ndarray:
    return MASKS[index]


def as_ints(kind: Any, value: int) -> Callable[[], dict[int, Any]]:
    return lambda: each(lambda k: MASKS[k].astype(kind) * np.array(value, kind))


def probable(make: Callable[[int], np.ndarray]) -> Callable[[int], np.ndarray]:
    """The mask of integers that are probabilities."""

    def mask(index: int) -> np.ndarray:
        values = make(index)
        return values / np.iinfo(values.dtype).max > 0.5

    return mask


def lower(index: int) -> np.ndarray:
    """A mask of about half of the resolution."""
    return np.ascontiguousarray(MASKS[index][::2, ::2])


def nearest(index: int) -> np.ndarray:
    low = torch.from_numpy(lower(index))[None, None].float()
    return torch.nn.functional.interpolate(low, TRUTH[index].shape, mode="nearest-exact")[0, 0].numpy() > 0  # fmt: skip


def negated(index: int) -> torch.Tensor:
    """A tensor that torch has not negated yet."""
    logits = torch.from_numpy(fields(index))
    return torch.complex(logits, logits).conj().imag


def around(middle: float, step: float, kind: type = np.float64) -> Callable[[], dict[int, Any]]:
    above, below = kind(middle) + kind(step), kind(middle) - kind(step)
    return lambda: each(lambda k: np.where(MASKS[k], above, below))


NOTHING, ALL = (lambda k: np.zeros_like(MASKS[k])), (lambda k: np.ones_like(MASKS[k]))
BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (255, 0, 0)
DECLARED = {"values": "logits"}
NEAREST = {"resize_masks": "nearest"}
ACCEPTED = {
    "bool": Case(lambda: each(own), {}, own),
    **{
        f"0/{value}, {np.dtype(kind)}": Case(as_ints(kind, value), {}, own)
        for kind, value in (
            (np.uint8, 1), (np.uint8, 225), (np.uint8, 255), (np.int8, 127), (np.uint16, 65535),
            (np.int16, 300), (np.uint32, 2**32 - 1), (np.int64, 7), (np.int64, 2**40), (np.uint64, 2**64 - 1),
        )
    },
    "empty": Case(lambda: each(lambda k: NOTHING(k).astype(np.uint8)), {}, NOTHING),
    "full": Case(lambda: each(lambda k: ALL(k) * np.uint8(255)), {}, ALL),
    "none": Case(lambda: each(lambda k: None), {}, NOTHING),
    "RLE": Case(lambda: each(lambda k: coco_encode(MASKS[k])), {}, own),
    "foreign bytes": Case(as_ints(">i2", 300), {}, own),
    "logits": Case(lambda: each(lambda k: MASKS[k] * np.float32(8) - 3), {}, own),
    "low logits": Case(lambda: each(fields), {}, lambda k: resized(fields(k), k)),
    "low logits, float16": Case(
        lambda: each(lambda k: fields(k).astype(np.float16)), {},
        lambda k: resized(fields(k).astype(np.float16), k),
    ),
    "low logits, bfloat16": Case(
        lambda: each(lambda k: torch.from_numpy(fields(k)).bfloat16()), {},
        lambda k: resized(torch.from_numpy(fields(k)).bfloat16(), k),
    ),
    "low logits, float8": Case(
        lambda: each(lambda k: torch.from_numpy(fields(k, (24, 24))).to(torch.float8_e4m3fn)), {},
        lambda k: resized(torch.from_numpy(fields(k, (24, 24))).to(torch.float8_e4m3fn), k),
    ),
    "0.0/1.0": Case(lambda: each(lambda k: MASKS[k].astype(np.float32)), {}, own),
    "empty floats": Case(lambda: each(lambda k: np.zeros((8, 8), np.float32)), {}, NOTHING),
    "black and white": Case(lambda: each(lambda k: Image.fromarray(MASKS[k])), {}, own),
    "grey": Case(lambda: each(lambda k: Image.fromarray(MASKS[k] * np.uint8(255))), {}, own),
    "16-bit grey": Case(lambda: each(lambda k: Image.fromarray(MASKS[k] * np.uint16(9000))), {}, own),
    "palette": Case(lambda: each(lambda k: palette(MASKS[k], BLACK, RED)), {}, own),
    "palette, white first": Case(lambda: each(lambda k: palette(~MASKS[k], WHITE, BLACK)), {}, own),
    "palette, all black": Case(lambda: each(lambda k: palette(NOTHING(k), BLACK, WHITE)), {}, NOTHING),
    "palette, all white": Case(lambda: each(lambda k: palette(ALL(k), BLACK, WHITE)), {}, ALL),
    "palette, transparent": Case(
        lambda: each(lambda k: palette(MASKS[k], WHITE, RED, transparency=0)), {}, own
    ),
    "soft uint8": Case(
        lambda: each(lambda k: scaled(k, np.uint8)), PROBABILITIES, probable(lambda k: scaled(k, np.uint8))
    ),
    "soft uint16": Case(
        lambda: each(lambda k: scaled(k, np.uint16)), PROBABILITIES, probable(lambda k: scaled(k, np.uint16))
    ),
    "soft picture": Case(
        lambda: each(lambda k: Image.fromarray(scaled(k, np.uint16))), PROBABILITIES,
        probable(lambda k: scaled(k, np.uint16)),
    ),
    "soft grey palette": Case(
        lambda: each(lambda k: palette(scaled(k, np.uint8), *((g, g, g) for g in range(256)))), PROBABILITIES,
        probable(lambda k: scaled(k, np.uint8)),
    ),
    "low uint8": Case(
        lambda: each(lambda k: scaled(k, np.uint8)[::2, ::3].copy()), PROBABILITIES,
        lambda k: resized(torch.from_numpy(scaled(k, np.uint8)[::2, ::3].copy()).float() / 255, k, 0.5),
    ),
    "0/255 as probabilities": Case(as_ints(np.uint8, 255), PROBABILITIES, own),
    "0/1 as probabilities": Case(as_ints(np.uint8, 1), PROBABILITIES, own),
    "0/255 among soft": Case(
        lambda: {**each(lambda k: scaled(k, np.uint8)), 2: MASKS[2] * np.uint8(255)}, PROBABILITIES,
        lambda k: own(k) if k == 2 else probable(lambda k: scaled(k, np.uint8))(k),
    ),
    "probabilities": Case(lambda: each(lambda k: SOFT[k]), PROBABILITIES, lambda k: SOFT[k] > 0.5),
    "label": Case(lambda: each(labels), {"label": 3}, own),
    "label, int64": Case(lambda: each(lambda k: labels(k).astype(np.int64) - 9), {"label": -6}, own),
    "label of a palette": Case(
        lambda: each(lambda k: palette(labels(k), *[(k, 2 * k, 9) for k in range(8)])), {"label": 3}, own
    ),
    **{
        f"label, {bits}-bit grey": Case(
            lambda bits=bits: each(lambda k: grey_png(labels(k) % 4, bits)), {"label": 3},
            lambda k: labels(k) % 4 == 3,
        )
        for bits in (2, 4, 8, 16)
    },
    **{
        f"{bits}-bit grey": Case(lambda bits=bits: each(lambda k: grey_png(MASKS[k] * 1, bits)), {}, own)
        for bits in (1, 2, 4, 8, 16)
    },
    "nearest, bool": Case(lambda: each(lower), NEAREST, nearest),
    "nearest, 0/255": Case(lambda: each(lambda k: lower(k) * np.uint8(255)), NEAREST, nearest),
    "nearest, int32": Case(lambda: each(lambda k: lower(k) * 7), NEAREST, nearest),
    "nearest, declared": Case(
        lambda: each(lambda k: lower(k) * np.uint8(255)), {**NEAREST, **PROBABILITIES}, nearest
    ),
    "nearest, label": Case(
        lambda: each(lambda k: lower(k) * np.uint8(3)), {**NEAREST, "label": 3}, nearest
    ),
    "nearest, picture": Case(lambda: each(lambda k: Image.fromarray(lower(k))), NEAREST, nearest),
    "0.5 ± 1e-9": Case(around(0.5, 1e-9), PROBABILITIES, own),
    "± 1e-50": Case(around(0.0, 1e-50), DECLARED, own),
    "more than 64 bits": Case(around(0.5, 1e-18, np.longdouble), PROBABILITIES, own),
    "negated": Case(lambda: each(negated), {}, lambda k: resized(-fields(k), k)),
    "with a graph": Case(
        lambda: each(lambda k: torch.from_numpy(fields(k)).requires_grad_()), {}, lambda k: resized(fields(k), k)
    ),
    "channels": Case(lambda: each(lambda k: fields(k)[None]), {}, lambda k: resized(fields(k), k)),
}  # fmt: skip
