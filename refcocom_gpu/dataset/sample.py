"""A seed in, the built-in sample out: its records, its pictures, and predictions for it.

The scenes themselves, which are drawn and described by rule, come from `scenes`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.dataset.scenes import COLOURS, KINDS, Draws, Mask, make_scene
from refcocom_gpu.errors import UsageError
from refcocom_gpu.masks.rle import decode, encode
from refcocom_gpu.utils.optional import require

# Ids start away from zero and leave gaps, so that code which takes a row number for an id fails.
FIRST_IMAGE_ID, IMAGE_ID_STEP = 1001, 3
FIRST_SAMPLE_ID, SAMPLE_ID_STEP = 20001, 13


def make_records(seed: int = 0, n_images: int = 36) -> list[dict[str, Any]]:
    """Make the sample's records, in RefCOCO-M's published schema without the `image` key.

    Args:
        seed: Any non-negative integer; equal seeds give equal records.
        n_images: How many images; the first ones do not depend on this number.

    Returns:
        One dict per image: `image_id`, `file_name` and 2 to 4 `samples`, each with `id`,
        `image_id`, `category`, `supercategory`, `label` (colour and category), 2 to 4 `sentences`,
        `bbox` (x, y, w, h in pixels, float) and `mask` (compressed COCO RLE, `size` [H, W]).
        Masks are disjoint within an image and never empty.

    Example:
        >>> sample = make_records(seed=0, n_images=1)[0]["samples"][0]
        >>> sample["id"], sample["label"], sample["mask"]["size"]
        (20002, 'red oval', [221, 246])
    """
    records = []
    for position in range(n_images):
        image_id = FIRST_IMAGE_ID + IMAGE_ID_STEP * position
        samples = [
            {
                "id": FIRST_SAMPLE_ID + SAMPLE_ID_STEP * position + place,
                "image_id": image_id,
                "category": shape.kind,
                "supercategory": KINDS[shape.kind][0],
                "label": f"{shape.colour} {shape.kind}",
                "sentences": list(shape.sentences),
                "bbox": [float(value) for value in shape.box],
                "mask": encode(shape.seen),
            }
            for place, shape in enumerate(make_scene(seed, image_id))
            if shape.sentences
        ]
        records.append(
            {"image_id": image_id, "file_name": f"sample_{image_id}.png", "samples": samples}
        )
    return records


def draw_image(image: int | Mapping[str, Any], seed: int = 0) -> NDArray[np.uint8]:
    """Draw the picture of an image; its colours change exactly where its masks do.

    Args:
        image: An image id of the sample, or its record.
        seed: The seed of the records.

    Returns:
        RGB, uint8 [H, W, 3].

    Raises:
        UsageError: The sample has no image of this id.

    Example:
        >>> draw_image(1001).dtype
        dtype('uint8')
    """
    image_id = int(image["image_id"] if isinstance(image, Mapping) else image)
    if image_id < FIRST_IMAGE_ID or (image_id - FIRST_IMAGE_ID) % IMAGE_ID_STEP:
        raise UsageError(
            f"the built-in sample has no image {image_id}; the first is {FIRST_IMAGE_ID}"
        )
    shapes = make_scene(seed, image_id)
    H, W = shapes[0].seen.shape
    y, x = np.ogrid[:H, :W]
    # The background is nearly grey and darkens downwards: no colour word fits it.
    light = 232 - 36 * y // H + 0 * x
    picture = np.stack([light - 4, light, light + 4], axis=-1)
    for shape in shapes:
        shade = 234 - 36 * (y - shape.centre[0] + x - shape.centre[1]) // (2 * shape.radius)
        # A dark rim keeps two overlapping shapes of one colour apart.
        shade = np.where(_grow(~shape.full, 2), 176, shade)[shape.seen]
        rgb = np.array(COLOURS[shape.colour], np.int64)
        picture[shape.seen] = np.minimum(shade[:, None] * rgb // 256, 255)
    return picture.astype(np.uint8)


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Encode a picture, uint8 [H, W, 3] RGB, as a PNG file.

    Raises:
        UsageError: Pillow is not installed.

    Example:
        >>> encode_png(draw_image(1001))[1:4]
        b'PNG'
    """
    pillow = require("PIL.Image", "encoding pictures needs Pillow", "images")
    buffer = io.BytesIO()
    pillow.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def make_predictions(
    records: Iterable[Mapping[str, Any]], kind: Literal["good", "coarse"], seed: int = 0
) -> list[dict[str, Any]]:
    """Make predictions for every example of `records`, in their order, as rows of the native format.

    A row depends only on its own record, the kind and the seed, not on the other records.

    Args:
        records: Image records in the published schema, of the sample or any other dataset.
        kind: `good` is like a strong model: nearly exact masks, a few of the wrong instance, mIoU
            about 0.87. `coarse` has masks of 16-pixel blocks, more of the wrong instance, some
            explicitly empty, mIoU about 0.54.
        seed: Any non-negative integer.

    Returns:
        Dicts of `sample_id`, `sentence_idx`, `sentence` and `segmentation`: compressed COCO RLE,
        or None for an explicitly empty mask.

    Raises:
        UsageError: `kind` is neither of the two.

    Example:
        >>> row = make_predictions(make_records(n_images=1), "good")[0]
        >>> row["sample_id"], row["sentence_idx"], sorted(row["segmentation"])
        (20002, 0, ['counts', 'size'])
    """
    if kind not in ("good", "coarse"):
        raise UsageError(
            f"predictions of kind {kind!r}: the built-in kinds are 'good' and 'coarse'"
        )
    rows = []
    for record in records:
        masks = [decode(sample["mask"]) for sample in record["samples"]]
        for place, sample in enumerate(record["samples"]):
            for sentence_idx, sentence in enumerate(sample["sentences"]):
                mask = _predict(masks, place, kind, Draws(seed, sample["id"], sentence_idx))
                rows.append(
                    {
                        "sample_id": sample["id"],
                        "sentence_idx": sentence_idx,
                        "sentence": sentence,
                        "segmentation": None if mask is None else encode(mask),
                    }
                )
    return rows


def _predict(masks: list[Mask], place: int, kind: str, draws: Draws) -> Mask | None:
    """Make a prediction of mask number `place` of an image; None where it is explicitly empty."""
    wrong, empty = (4, 0) if kind == "good" else (7, 3)  # percent
    chance = draws.below(100)
    if chance >= 100 - empty:
        return None
    mask = masks[place]
    if chance < wrong:
        # Another instance of the image, or the mirrored mask where there is only one.
        others = masks[:place] + masks[place + 1 :]
        mask = others[draws.below(len(others))] if others else mask[:, ::-1]
    return _wobble(mask, draws) if kind == "good" else _blocks(mask, 16)


def _grow(mask: Mask, k: int) -> Mask:
    """Add every pixel within `k` rows and columns of the mask; [H, W]."""
    for _ in range(2):  # rows, then columns
        grown = mask.copy()
        for step in range(1, k + 1):
            grown[step:] |= mask[:-step]
            grown[:-step] |= mask[step:]
        mask = np.asarray(grown.T)
    return mask


def _wobble(mask: Mask, draws: Draws) -> Mask:
    """Flip patches of the boundary of a mask, in a band that is wider for larger masks."""
    H, W = mask.shape
    k = draws.between(1, 1 + math.isqrt(np.count_nonzero(mask)) // 32)
    band = _grow(mask, k) & _grow(~mask, k)
    return np.asarray(mask ^ (band & (draws.field(H, W, 6, 5) == 0)))


def _blocks(mask: Mask, cell: int) -> Mask:
    """Set each square of `cell` pixels to its majority, as a model with one output per square would."""
    H, W = mask.shape
    h, w = -(-H // cell), -(-W // cell)
    padded = np.pad(mask, ((0, h * cell - H), (0, w * cell - W)))
    full = 2 * padded.reshape(h, cell, w, cell).sum((1, 3)) >= cell * cell
    return np.asarray(full.repeat(cell, 0).repeat(cell, 1)[:H, :W])
