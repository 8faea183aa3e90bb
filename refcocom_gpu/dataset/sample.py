"""A seed in, the built-in sample out: drawn scenes as RefCOCO-M records, pictures, predictions.

A scene is a handful of flat shapes painted back to front, so that a mask is exactly the pixels one
sees. Everything is integer arithmetic on raw PCG64 words, the one stream NumPy promises never to
change: a seed gives the same bytes on every platform and version.

**When a sentence is kept.** Each describing word has a *strict* and a *loose* reading: a shape with
its centre in the left 40 % is strictly "on the left", one in the left 55 % loosely so. A sentence
is kept if its shape meets every word strictly and no other shape of the scene meets all of them
even loosely: then it is true, and unambiguous also for a reader who draws the lines elsewhere.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import UsageError
from refcocom_gpu.masks.rle import decode, encode

T = TypeVar("T")
Mask = NDArray[np.bool_]

# Ids start away from zero and leave gaps: code that takes a row number for an id fails here first.
FIRST_IMAGE_ID, IMAGE_ID_STEP = 1001, 3
FIRST_SAMPLE_ID, SAMPLE_ID_STEP = 20001, 13

COLOURS = {
    "red": (212, 56, 50), "orange": (240, 144, 40), "yellow": (244, 214, 66),
    "green": (60, 164, 86), "blue": (52, 108, 212), "purple": (146, 76, 184),
}  # fmt: skip
"""The RGB value of each colour word before shading, uint8 units."""

# The tips of a star of radius 1000.
_STAR = ((0, -1000), (951, -309), (588, 809), (-588, 809), (-951, -309))

_Inside = Callable[[Any, Any, int], Any]
KINDS: dict[str, tuple[str, _Inside]] = {
    "disc": ("round", lambda x, y, r: x * x + y * y <= r * r),
    "ring": ("round", lambda x, y, r: (4 * (x * x + y * y) >= r * r) & (x * x + y * y <= r * r)),
    "oval": ("round", lambda x, y, r: 9 * x * x + 25 * y * y <= 9 * r * r),
    "square": ("angular", lambda x, y, r: 5 * np.maximum(abs(x), abs(y)) <= 4 * r),
    "triangle": ("angular", lambda x, y, r: (7 * abs(x) <= 4 * (y + r)) & (4 * y <= 3 * r)),
    "diamond": ("angular", lambda x, y, r: 3 * abs(x) + 2 * abs(y) <= 2 * r),
    "cross": (
        "pointed",
        lambda x, y, r: (3 * np.minimum(abs(x), abs(y)) <= r) & (np.maximum(abs(x), abs(y)) <= r),
    ),
    # A pentagram is where at least four of its five lines have the point on their inner side.
    "star": ("pointed", lambda x, y, r: sum(1 * (a * x + b * y <= 309 * r) for a, b in _STAR) >= 4),
}
"""Category: (supercategory, is the pixel x, y off the centre inside at radius r?), all integers."""

_SIDES = (
    # side, opposite, position, superlative, relation
    ("left", "right", "{} on the left", "leftmost {}", "to the left of"),
    ("right", "left", "{} on the right", "rightmost {}", "to the right of"),
    ("top", "bottom", "{} at the top", "topmost {}", "above"),
    ("bottom", "top", "{} at the bottom", "lowest {}", "below"),
)

SIZES = {"small": (8, 10), "": (13, 15), "large": (20, 25)}
"""Radius in percent of the shorter side, inclusive; gaps between ranges keep the words apart."""


class _Draws:
    """Random integers from raw PCG64 words; at 64 bits the bias of a modulo does not matter."""

    def __init__(self, *entropy: int) -> None:
        self._words = np.random.PCG64(entropy).random_raw

    def below(self, n: int) -> int:
        return int(self._words()) % n

    def between(self, low: int, high: int) -> int:
        return low + self.below(high - low + 1)

    def pick(self, items: Sequence[T], k: int) -> list[T]:
        """`k` different ones of `items`, in random order."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in range(min(k, len(rest)))]

    def field(self, H: int, W: int, cell: int, n: int) -> NDArray[np.int64]:
        """Integers below `n`, [H, W], constant on squares of `cell` pixels at a random offset."""
        h, w = H // cell + 2, W // cell + 2
        words = (self._words(h * w) % np.uint64(n)).astype(np.int64).reshape(h, w)
        y, x = self.below(cell), self.below(cell)
        return words.repeat(cell, 0).repeat(cell, 1)[y : y + H, x : x + W]


@dataclass(eq=False)
class _Shape:
    place: int  # in painting order, back to front
    kind: str
    colour: str
    size: str
    radius: int
    centre: tuple[int, int]  # y, x
    full: Mask  # [H, W], what it would cover with nothing in front
    seen: Mask  # [H, W], what one sees
    touching: set[_Shape] = field(default_factory=set)  # whose `full` overlaps this one's
    area: int = 0  # of `seen`, pixels
    box: tuple[int, int, int, int] = (0, 0, 0, 0)  # x, y, w, h of `seen`
    edge: dict[str, int] = field(default_factory=dict)  # from each side to the box's centre, ½ px
    sentences: list[str] = field(default_factory=list)  # empty: not referred to

    def look(self) -> None:
        """Measure what one sees."""
        self.area = int(np.count_nonzero(self.seen))
        H, W = self.seen.shape
        rows, columns = np.flatnonzero(self.seen.any(1)), np.flatnonzero(self.seen.any(0))
        top, bottom, left, right = (int(v) for v in (*rows[[0, -1]], *columns[[0, -1]]))
        self.box = (left, top, right - left + 1, bottom - top + 1)
        x, y = left + right + 1, top + bottom + 1
        self.edge = {"left": x, "right": 2 * W - x, "top": y, "bottom": 2 * H - y}


def make_records(seed: int = 0, n_images: int = 36) -> list[dict[str, Any]]:
    """The sample's records, in RefCOCO-M's published schema without the `image` key.

    Args:
        seed: Any non-negative integer; equal seeds give equal records.
        n_images: How many scenes; the first ones are the same for any number.

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
            for place, shape in enumerate(_scene(seed, image_id))
            if shape.sentences
        ]
        records.append(
            {"image_id": image_id, "file_name": f"sample_{image_id}.png", "samples": samples}
        )
    return records


def draw_image(image: int | Mapping[str, Any], seed: int = 0) -> NDArray[np.uint8]:
    """The picture of a scene; its colours change exactly where its masks do.

    Args:
        image: An image id of the sample, or its record.
        seed: The seed the records were made with.

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
    shapes = _scene(seed, image_id)
    H, W = shapes[0].seen.shape
    y, x = np.ogrid[:H, :W]
    # A nearly grey backdrop that darkens downwards: no colour word fits it.
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
    """A picture, uint8 [H, W, 3] RGB, as the bytes of a PNG file.

    Raises:
        UsageError: Pillow is not installed.

    Example:
        >>> encode_png(draw_image(1001))[1:4]
        b'PNG'
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise UsageError(
            "encoding pictures needs Pillow: pip install 'refcocom-gpu[images]'"
        ) from error
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def make_predictions(
    records: Iterable[Mapping[str, Any]], kind: Literal["good", "coarse"], seed: int = 0
) -> list[dict[str, Any]]:
    """Predictions for every example of `records`, in their order, as rows of the native format.

    A row depends only on its own record, the kind and the seed, not on the other records.

    Args:
        records: Image records in the published schema; any will do, not only the sample's.
        kind: `good`: what a strong model would give, nearly exact masks and a few wrong picks,
            mIoU about 0.87. `coarse`: masks of 16-pixel blocks, more wrong picks, some explicitly
            empty, mIoU about 0.54.
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
    wrong, empty = (4, 0) if kind == "good" else (7, 3)  # percent
    rows = []
    for record in records:
        masks = [decode(sample["mask"]) for sample in record["samples"]]
        for place, sample in enumerate(record["samples"]):
            for sentence_idx, sentence in enumerate(sample["sentences"]):
                draws = _Draws(seed, sample["id"], sentence_idx)
                chance = draws.below(100)
                mask = masks[place]
                if chance < wrong:
                    others = masks[:place] + masks[place + 1 :]
                    mask = others[draws.below(len(others))] if others else mask[:, ::-1]
                mask = _wobble(mask, draws) if kind == "good" else _blocks(mask, 16)
                rows.append(
                    {
                        "sample_id": sample["id"],
                        "sentence_idx": sentence_idx,
                        "sentence": sentence,
                        "segmentation": None if chance >= 100 - empty else encode(mask),
                    }
                )
    return rows


def _scene(seed: int, image_id: int) -> list[_Shape]:
    """The shapes of one image, back to front; 2 to 4 of them carry sentences."""
    draws = _Draws(seed, image_id)
    while True:  # until enough of the shapes can be told apart; nearly always the first time
        H, W = draws.between(160, 320), draws.between(160, 320)
        # Few kinds and colours, so that a scene holds rivals and one word is seldom enough.
        kinds, colours = draws.pick(list(KINDS), 3), draws.pick(list(COLOURS), 3)
        shapes: list[_Shape] = []
        wanted = draws.between(5, 8)
        for _ in range(3 * wanted):
            if len(shapes) < wanted:
                _add(shapes, draws.pick(kinds, 1)[0], draws.pick(colours, 1)[0], H, W, draws)
        for shape in shapes:
            shape.look()
        referred = draws.between(2, 4)
        for shape in draws.pick(shapes, len(shapes)):
            phrases = _phrases(shapes, shape)
            if referred and len(phrases) >= 2:
                referred -= 1
                for nouns in draws.pick(list(phrases.values()), draws.between(2, 4)):
                    article = draws.pick(("", "the "), 1)[0]
                    shape.sentences.append(article + draws.pick(nouns, 1)[0])
        if sum(bool(shape.sentences) for shape in shapes) >= 2:
            return shapes


def _add(shapes: list[_Shape], kind: str, colour: str, H: int, W: int, draws: _Draws) -> None:
    """Paint one more shape in front, unless that leaves any too hidden to be recognised."""
    size = draws.pick(list(SIZES), 1)[0]
    radius = min(H, W) * draws.between(*SIZES[size]) // 100
    # The border of the image may cut a little off.
    lowest, highest = 3 * radius // 4, (H - 1 - 3 * radius // 4, W - 1 - 3 * radius // 4)
    centre = draws.between(lowest, highest[0]), draws.between(lowest, highest[1])
    if shapes and draws.below(2):  # crowd an earlier one, so that there is something to hide
        other = draws.pick(shapes, 1)[0]
        reach = other.radius + radius
        moved = [c + draws.between(-reach, reach) for c in other.centre]
        centre = min(max(moved[0], lowest), highest[0]), min(max(moved[1], lowest), highest[1])
    y, x = np.ogrid[-centre[0] : H - centre[0], -centre[1] : W - centre[1]]
    full = np.asarray(KINDS[kind][1](x, y, radius), np.bool_)
    clear = ~full
    seen = [shape.seen & clear for shape in shapes]
    for mask, other in zip(seen, shapes, strict=True):
        if 2 * np.count_nonzero(mask) < np.count_nonzero(other.full):
            return
    shape = _Shape(len(shapes), kind, colour, size, radius, centre, full, full)
    for mask, other in zip(seen, shapes, strict=True):
        other.seen = mask
        if (other.full & full).any():
            other.touching.add(shape)
            shape.touching.add(other)
    shapes.append(shape)


def _phrases(shapes: list[_Shape], t: _Shape) -> dict[str, list[str]]:
    """Every phrase that `t` meets strictly and no other shape loosely, by template."""
    kind = {s for s in shapes if s is not t and s.kind == t.kind}
    colour = {s for s in shapes if s is not t and s.colour == t.colour}
    nouns = {t.kind: kind, f"{t.colour} shape": colour, f"{t.colour} {t.kind}": kind & colour}
    phrases = {
        # Nothing is the largest of one.
        template: [
            template.format(noun) for noun, alike in nouns.items() if alike and not alike & rivals
        ]
        for template, rivals in _superlatives(shapes, t)
    }
    if t.size:
        # A middle-sized shape has no size word and might pass for either.
        near = {s for s in shapes if s.size in (t.size, "")}
        nouns |= {f"{t.size} {noun}": alike & near for noun, alike in nouns.items()}
    for template, rivals in _qualifiers(shapes, t):
        phrases[template] = [
            template.format(noun) for noun, alike in nouns.items() if not alike & rivals
        ]
    return {template: found for template, found in phrases.items() if found}


def _superlatives(shapes: list[_Shape], t: _Shape) -> Iterator[tuple[str, set[_Shape]]]:
    """Templates that `t` may win, each with the shapes it does not clearly beat."""
    # By eye, size may mean extent or visible area: `t` must be ahead by a quarter in both.
    larger = {s for s in shapes if 5 * s.radius > 4 * t.radius or 5 * s.area > 4 * t.area}
    smaller = {s for s in shapes if 4 * s.radius < 5 * t.radius or 4 * s.area < 5 * t.area}
    yield "largest {}", larger
    yield "smallest {}", smaller
    for side, opposite, _, template, _ in _SIDES:
        limit = t.edge[side] + (t.edge[side] + t.edge[opposite]) // 10
        yield template, {s for s in shapes if s.edge[side] < limit}


def _qualifiers(shapes: list[_Shape], t: _Shape) -> Iterator[tuple[str, set[_Shape]]]:
    """Templates that `t` meets strictly, each with the shapes that meet it loosely."""
    yield "{}", set(shapes)
    for side, opposite, template, _, _ in _SIDES:
        length = t.edge[side] + t.edge[opposite]
        if 5 * t.edge[side] <= 2 * length:
            yield template, {s for s in shapes if 20 * s.edge[side] < 11 * length}
    looks = [(s.colour, s.kind) for s in shapes]
    for a in shapes:  # what `t` is beside, if colour and kind name it
        if a is t or looks.count((a.colour, a.kind)) > 1:
            continue
        anchor = f"the {a.colour} {a.kind}"
        gaps = {side: a.edge[side] - t.edge[side] for side in a.edge}
        for side, opposite, _, _, relation in _SIDES:
            # Strictly: an eighth of the side, no further any other way. Loosely: this way at all.
            far = 8 * gaps[side] >= t.edge[side] + t.edge[opposite]
            if far and gaps[side] == max(gaps.values()):
                loosely = {s for s in shapes if s.edge[side] < a.edge[side]}
                yield f"{{}} {relation} {anchor}", loosely
        # Strictly: a tenth of the one behind is seen to be covered. Loosely: they overlap at all.
        behind = {s for s in a.touching if s.place < a.place}
        if t in behind and _share(t.full, a.seen):
            yield f"{{}} behind {anchor}", behind
        if t in a.touching - behind and _share(a.full, t.seen):
            yield f"{{}} in front of {anchor}", a.touching - behind


def _share(behind: Mask, front: Mask) -> bool:
    return bool(10 * np.count_nonzero(behind & front) >= np.count_nonzero(behind))


def _grow(mask: Mask, k: int) -> Mask:
    """`mask` [H, W] and every pixel within `k` rows and columns of it."""
    for _ in range(2):  # rows, then columns
        grown = mask.copy()
        for step in range(1, k + 1):
            grown[step:] |= mask[:-step]
            grown[:-step] |= mask[step:]
        mask = np.asarray(grown.T)
    return mask


def _wobble(mask: Mask, draws: _Draws) -> Mask:
    """`mask` with patches of its boundary flipped, in a band that is wider for larger shapes."""
    H, W = mask.shape
    k = draws.between(1, 1 + math.isqrt(np.count_nonzero(mask)) // 32)
    return np.asarray(mask ^ (_grow(mask, k) & _grow(~mask, k) & (draws.field(H, W, 6, 5) == 0)))


def _blocks(mask: Mask, cell: int) -> Mask:
    """`mask` as a model with one output per square of `cell` pixels gives it: its majority."""
    H, W = mask.shape
    h, w = -(-H // cell), -(-W // cell)
    padded = np.pad(mask, ((0, h * cell - H), (0, w * cell - W)))
    full = 2 * padded.reshape(h, cell, w, cell).sum((1, 3)) >= cell * cell
    return np.asarray(full.repeat(cell, 0).repeat(cell, 1)[:H, :W])
