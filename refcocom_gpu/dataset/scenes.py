"""A seed and an image id in, a drawn scene out: the shapes of one image of the built-in sample, with their sentences.

A scene is a handful of flat shapes painted back to front, so a mask is exactly the pixels of its shape that one sees.
Everything is integer arithmetic on raw PCG64 words, the one stream that NumPy promises never to change. A seed gives
the same bytes on every platform and version.

**When a sentence is kept.** Each describing word has a *strict* and a *loose* reading. A shape with its centre in the
left 40 % is strictly "on the left"; one in the left 55 % is loosely so. A sentence is kept if its shape meets every
word strictly and no other shape of the scene meets all of them even loosely. It is then true, and it stays unambiguous
for a reader who draws the lines elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Mask = NDArray[np.bool_]

COLOURS = {
    "red": (212, 56, 50), "orange": (240, 144, 40), "yellow": (244, 214, 66),
    "green": (60, 164, 86), "blue": (52, 108, 212), "purple": (146, 76, 184),
}  # fmt: skip
"""The RGB value of each colour word before shading, 0 to 255."""

# The tips of a star of radius 1000, the first repeated at the end.
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
    # A point is in a pentagram if it lies on the inner side of at least four of its five lines.
    "star": ("pointed", lambda x, y, r: sum(1 * (a * x + b * y <= 309 * r) for a, b in _STAR) >= 4),
}
"""Category: its supercategory, and a test whether the pixel at x, y from the centre is inside at radius r; integers."""

_SIDES = (
    # side, opposite side, position, superlative, relation
    ("left", "right", "{} on the left", "leftmost {}", "to the left of"),
    ("right", "left", "{} on the right", "rightmost {}", "to the right of"),
    ("top", "bottom", "{} at the top", "topmost {}", "above"),
    ("bottom", "top", "{} at the bottom", "lowest {}", "below"),
)

SIZES = {"small": (8, 10), "": (13, 15), "large": (20, 25)}
"""Radius in percent of the shorter side, both ends included; gaps between the ranges keep the words apart."""


class Draws:
    """Random integers from raw PCG64 words; at 64 bits the bias of a modulo does not matter."""

    def __init__(self, *entropy: int) -> None:
        self._words = np.random.PCG64(entropy).random_raw

    def below(self, n: int) -> int:
        """Draw from 0 to n - 1."""
        return int(self._words()) % n

    def between(self, low: int, high: int) -> int:
        """Draw from `low` to `high`, both included."""
        return low + self.below(high - low + 1)

    def pick(self, items: Sequence[T], k: int) -> list[T]:
        """Choose `k` different items, in random order."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in range(min(k, len(rest)))]

    def field(self, H: int, W: int, cell: int, n: int) -> NDArray[np.int64]:
        """Draw integers below `n`, [H, W] int64, constant on squares of `cell` pixels at a random offset."""
        h, w = H // cell + 2, W // cell + 2
        words = (self._words(h * w) % np.uint64(n)).astype(np.int64).reshape(h, w)
        y, x = self.below(cell), self.below(cell)
        return words.repeat(cell, 0).repeat(cell, 1)[y : y + H, x : x + W]


@dataclass(eq=False)
class Shape:
    """One shape of a scene."""

    place: int  # in painting order, back to front
    kind: str
    colour: str
    size: str
    radius: int
    centre: tuple[int, int]  # y, x
    full: Mask  # [H, W], the pixels it covers, hidden ones included
    seen: Mask  # [H, W], the pixels that one sees
    touching: set[Shape] = field(default_factory=set)  # the shapes whose `full` overlaps this one's
    area: int = 0  # of `seen`, pixels
    box: tuple[int, int, int, int] = (0, 0, 0, 0)  # x, y, w, h of `seen`
    edge: dict[str, int] = field(default_factory=dict)  # side → half pixels to the box's centre
    sentences: list[str] = field(default_factory=list)  # none where the shape is not referred to

    def measure(self) -> None:
        """Measure the pixels that one sees."""
        self.area = int(np.count_nonzero(self.seen))
        H, W = self.seen.shape
        rows, columns = np.flatnonzero(self.seen.any(1)), np.flatnonzero(self.seen.any(0))
        top, bottom, left, right = (int(v) for v in (*rows[[0, -1]], *columns[[0, -1]]))
        self.box = (left, top, right - left + 1, bottom - top + 1)
        x, y = left + right + 1, top + bottom + 1
        self.edge = {"left": x, "right": 2 * W - x, "top": y, "bottom": 2 * H - y}


def make_scene(seed: int, image_id: int) -> list[Shape]:
    """Make the scene of one image.

    Args:
        seed: Any non-negative integer.
        image_id: The id of the image.

    Returns:
        The shapes, usually 5 to 8, back to front; 2 to 4 of them have sentences.
    """
    draws = Draws(seed, image_id)
    # Nearly always the first attempt has enough shapes that can be told apart.
    while True:
        H, W = draws.between(160, 320), draws.between(160, 320)
        # Few kinds and colours, so that shapes resemble each other and one word is seldom enough.
        kinds, colours = draws.pick(list(KINDS), 3), draws.pick(list(COLOURS), 3)
        shapes: list[Shape] = []
        wanted = draws.between(5, 8)
        for _ in range(3 * wanted):
            if len(shapes) < wanted:
                _add(shapes, draws.pick(kinds, 1)[0], draws.pick(colours, 1)[0], H, W, draws)
        for shape in shapes:
            shape.measure()
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


def _add(shapes: list[Shape], kind: str, colour: str, H: int, W: int, draws: Draws) -> None:
    """Paint one more shape in front, unless that leaves more than half of another hidden."""
    size = draws.pick(list(SIZES), 1)[0]
    radius = min(H, W) * draws.between(*SIZES[size]) // 100
    # The border of the image may cut a little off.
    margin = 3 * radius // 4
    y, x = draws.between(margin, H - 1 - margin), draws.between(margin, W - 1 - margin)
    if shapes and draws.below(2):
        # About half of the shapes are placed near an earlier one, so that they hide each other.
        other = draws.pick(shapes, 1)[0]
        reach = other.radius + radius
        y, x = (c + draws.between(-reach, reach) for c in other.centre)
        y = min(max(y, margin), H - 1 - margin)
        x = min(max(x, margin), W - 1 - margin)
    rows, columns = np.ogrid[-y : H - y, -x : W - x]
    full = np.asarray(KINDS[kind][1](columns, rows, radius), np.bool_)
    seen = [shape.seen & ~full for shape in shapes]
    for mask, other in zip(seen, shapes, strict=True):
        if 2 * np.count_nonzero(mask) < np.count_nonzero(other.full):
            return
    shape = Shape(len(shapes), kind, colour, size, radius, (y, x), full, full)
    for mask, other in zip(seen, shapes, strict=True):
        other.seen = mask
        if (other.full & full).any():
            other.touching.add(shape)
            shape.touching.add(other)
    shapes.append(shape)


def _phrases(shapes: list[Shape], t: Shape) -> dict[str, list[str]]:
    """Find every phrase that the target `t` meets strictly and no other shape loosely, by template."""
    kind = {s for s in shapes if s is not t and s.kind == t.kind}
    colour = {s for s in shapes if s is not t and s.colour == t.colour}
    nouns = {t.kind: kind, f"{t.colour} shape": colour, f"{t.colour} {t.kind}": kind & colour}
    phrases = {
        # Nothing is called the largest if it is the only one of its noun.
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
    return {template: matching for template, matching in phrases.items() if matching}


def _superlatives(shapes: list[Shape], t: Shape) -> Iterator[tuple[str, set[Shape]]]:
    """Yield each superlative with the shapes that `t` does not clearly surpass in it."""
    # A reader may take size for extent or for visible area: `t` must lead by a quarter in both.
    larger = {s for s in shapes if 5 * s.radius > 4 * t.radius or 5 * s.area > 4 * t.area}
    smaller = {s for s in shapes if 4 * s.radius < 5 * t.radius or 4 * s.area < 5 * t.area}
    yield "largest {}", larger
    yield "smallest {}", smaller
    for side, opposite, _, template, _ in _SIDES:
        limit = t.edge[side] + (t.edge[side] + t.edge[opposite]) // 10
        yield template, {s for s in shapes if s.edge[side] < limit}


def _qualifiers(shapes: list[Shape], t: Shape) -> Iterator[tuple[str, set[Shape]]]:
    """Yield each template that `t` meets strictly, with the shapes that meet it loosely."""
    yield "{}", set(shapes)
    for side, opposite, template, _, _ in _SIDES:
        length = t.edge[side] + t.edge[opposite]
        if 5 * t.edge[side] <= 2 * length:
            yield template, {s for s in shapes if 20 * s.edge[side] < 11 * length}
    labels = [(s.colour, s.kind) for s in shapes]
    for a in shapes:
        # `t` is described by its relation to `a`, if colour and kind name `a` alone.
        if a is t or labels.count((a.colour, a.kind)) > 1:
            continue
        anchor = f"the {a.colour} {a.kind}"
        gaps = {side: a.edge[side] - t.edge[side] for side in a.edge}
        for side, opposite, _, _, relation in _SIDES:
            # Strictly: by an eighth of the image, and no further in another direction. Loosely: by any distance.
            far = 8 * gaps[side] >= t.edge[side] + t.edge[opposite]
            if far and gaps[side] == max(gaps.values()):
                loosely = {s for s in shapes if s.edge[side] < a.edge[side]}
                yield f"{{}} {relation} {anchor}", loosely
        # Strictly: one sees a tenth of the shape behind covered. Loosely: the two overlap.
        behind = {s for s in a.touching if s.place < a.place}
        if t in behind and _covers_a_tenth(a.seen, t.full):
            yield f"{{}} behind {anchor}", behind
        if t in a.touching - behind and _covers_a_tenth(t.seen, a.full):
            yield f"{{}} in front of {anchor}", a.touching - behind


def _covers_a_tenth(front: Mask, behind: Mask) -> bool:
    return bool(10 * np.count_nonzero(behind & front) >= np.count_nonzero(behind))
