"""What prediction files cannot say themselves: options declared once, passed whole and written into a result."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.names import Template
from refcocom_gpu.predictions.renames import Renames
from refcocom_gpu.utils.options import option

KEYS = ("sample", "position", "sentence", "order", "refer")
"""How the rows of a table name their examples."""

VALUES = {"logits": 0.0, "probabilities": 0.5}
"""What float predictions are, and the value that a set pixel lies strictly above."""

RESIZES = ("direct", "sam")
"""How logits reach the image: in one step, or through the padded input as SAM's postprocessing does."""

BILINEAR, NEAREST, BICUBIC = INTERPOLATIONS = ("bilinear", "nearest", "bicubic")
"""How logits and probabilities are interpolated, as `F.interpolate` names them; `interpolation` defines them."""

MASK_RESIZES = ("nearest",)
"""How masks of another size than their image reach it, if they may."""

COMBINES = ("union", "best")
"""How several masks for one expression become one: a pixel that any sets, or the mask with the highest score."""

REPEATS = ("identical",)
"""What rows for an example that was predicted already may be: the same mask again."""

EXTRAS = ("ignore",)
"""What may become of rows for examples that the dataset does not have."""

CENTER = "center"
"""`letterbox` of images that lie in the middle of the padded input."""

POLYGONS = ("pixels", "normalized")
"""Scale of polygon coordinates: pixels of the image, or 0…1 of its width and height."""

BOX_FORMATS = ("xyxy", "xywh")
"""What the four numbers of a box are: x0, y0, x1, y1, or x, y, width, height."""

UNITS = {"normalized": 1.0, "thousandths": 1000.0}
"""What the right and the lower edge of the image are in coordinates that do not depend on its size."""

SCALES = ("pixels", *UNITS)
"""The unit of coordinates: pixels of the image, 0…1 of its width and height, or 0…1000 of them."""

BOX_FORMS = (
    "declare box_format=xyxy (x0, y0, x1, y1) or xywh (x, y, width, height), and box_scale=pixels, normalized (0…1 of "
    "width and height) or thousandths (0…1000)"
)
"""What to do about boxes of an unknown form."""

WITHOUT_EFFECT = ("batch_size", "threads")
"""Options that change how long reading takes but no mask."""


@dataclass
class ReadOptions:
    """How predictions are read; the configs of all verbs that read predictions inherit these fields.

    Attributes:
        keys: How the rows of a table name their examples, as `key_forms` says; None follows the dataset.
        fields: What a file calls our fields, by our name: `{"sample_id": "ann_id"}`; None renames nothing.
        name: How members of archives and pictures are called, as `names` says, without their ending; None for
            `{sample_id}_{sentence_idx}`, or what else is the key of the dataset.
        values: What numbers are: `logits` (set above 0) or `probabilities` (set above 0.5; 8- and 16-bit integers are
            divided by their maximum first). None takes floats for logits and refuses a set that looks otherwise.
        label: The value of a set pixel in integer masks that hold several labels.
        letterbox: Side of the padded square input when the image fills only its top-left part (SAM, LISA: 1024);
            `center` when it lies in the middle of a padded input of any shape (Ultralytics).
        resize: `direct` resizes the valid region to the image; `sam` goes through the padded input first.
        resize_masks: `nearest` resizes masks of another size than their image; None refuses them.
        combine: What becomes of several masks for one expression: `union` (a pixel that any sets) or `best` (the one
            with the highest score); None refuses them.
        repeats: `identical` reads an example once whose rows all have the same mask, as ranks with a padded sampler
            write them; None refuses a second row, and different masks are refused in any case.
        extra: `ignore` leaves out rows for examples that the dataset does not have, and counts them. Each row that is
            used must then carry its sentence, because positions differ between versions of a dataset.
        polygons: Scale of polygon coordinates; None refuses polygons, because a guess can be wrong.
        box_format: What the four numbers of the field `box` are, `xyxy` or `xywh`, for predictions that are boxes. None
            reads masks.
        box_scale: The unit of their coordinates, one of `SCALES`; declared with `box_format`, because a guess can be
            wrong.
        no_target_threshold: The score above which `no_target` says that an expression has no target; None takes
            labels alone: true, false, 0 and 1.
        batch_size: Predictions held in memory at a time.
        threads: CPU threads; 0 for all cores. With 1, nothing is counted while files are read.

    Raises:
        UsageError: For a value that is unknown or out of range.
    """

    keys: str | None = option(
        None,
        "how rows name examples: sample, position, sentence, order or refer; null follows dataset.key",
        choices=KEYS,
    )
    fields: dict[str, str] | None = option(  # noqa: RUF009 (it makes a field)
        None,
        "what a file calls our fields: fields.sample_id=ann_id fields.segmentation=mask",
        mapping=True,
    )
    name: str | None = option(
        None,
        "how arrays and pictures are called: {image_id}_{sample_id}_{sentence_idx}, {} for any text; "
        "null follows the key",
    )
    values: str | None = option(
        None,
        "what numbers are: logits (set above 0) or probabilities (set above 0.5); null takes floats for logits "
        "and refuses those that look like probabilities",
        choices=tuple(VALUES),
    )
    label: int | None = option(
        None, "value of a set pixel in integer masks that hold several labels"
    )
    letterbox: int | str | None = option(
        None,
        "side of the padded square input when the image fills only its top-left part, such as 1024; "
        "center when it lies in the middle",
    )
    resize: str = option(
        "direct",
        "letterboxed logits to the image: direct, or sam (through the padded input)",
        choices=RESIZES,
    )
    resize_masks: str | None = option(
        None,
        "masks of another size than their image: nearest; null refuses them",
        choices=MASK_RESIZES,
    )
    combine: str | None = option(
        None,
        "several masks for one expression: union, or best by score; null refuses them",
        choices=COMBINES,
    )
    repeats: str | None = option(
        None,
        "rows that come again: identical reads equal masks once; null refuses them",
        choices=REPEATS,
    )
    extra: str | None = option(
        None,
        "rows for examples that the dataset does not have: ignore leaves them out, if the others carry their sentence; "
        "null refuses them",
        choices=EXTRAS,
    )
    polygons: str | None = option(
        None,
        "scale of polygon coordinates: pixels or normalized; null refuses polygons",
        choices=POLYGONS,
    )
    box_format: str | None = option(
        None,
        "rows hold boxes instead of masks, in the field box: xyxy (x0, y0, x1, y1) or xywh (x, y, width, height)",
        choices=BOX_FORMATS,
    )
    box_scale: str | None = option(
        None,
        "unit of these boxes: pixels, normalized (0…1 of width and height) or thousandths (0…1000)",
        choices=SCALES,
    )
    no_target_threshold: float | None = option(
        None, "score in no_target above which an expression has no target; null takes labels alone"
    )
    batch_size: int = option(256, "dense predictions held in memory at a time")
    threads: int = option(0, "CPU threads; 0 for all cores")

    def __post_init__(self) -> None:
        _one_of("resize", self.resize, RESIZES)
        for name, value, known in (
            ("keys", self.keys, KEYS),
            ("values", self.values, tuple(VALUES)),
            ("resize_masks", self.resize_masks, MASK_RESIZES),
            ("combine", self.combine, COMBINES),
            ("repeats", self.repeats, REPEATS),
            ("extra", self.extra, EXTRAS),
            ("polygons", self.polygons, POLYGONS),
            ("box_format", self.box_format, BOX_FORMATS),
            ("box_scale", self.box_scale, SCALES),
        ):
            if value is not None:
                _one_of(name, value, known)
        renames = Renames(self.fields)
        if (self.box_format is None) != (self.box_scale is None):
            given = "box_scale" if self.box_format is None else "box_format"
            raise UsageError(
                f"{given}={getattr(self, given)} alone does not say what boxes are; {BOX_FORMS}"
            )
        if "box" in renames.given and self.box_format is None:
            raise UsageError(f"fields.box={renames.given['box']} names boxes; {BOX_FORMS}")
        if self.name is not None:
            Template(self.name)
        if self.extra is not None and self.keys == "order":
            raise UsageError(
                "keys=order takes exactly one row for each example; extra=ignore does not go with it"
            )
        side = self.letterbox
        if side not in (None, CENTER) and (isinstance(side, str) or side < 1):
            raise UsageError(
                f"letterbox must be the side of the padded input or {CENTER}, not {side}"
            )
        if self.resize == "sam" and side in (None, CENTER):
            raise UsageError("resize=sam needs letterbox=SIDE, the side of the padded input")
        if self.no_target_threshold is not None and not math.isfinite(self.no_target_threshold):
            raise UsageError(
                f"no_target_threshold must be a finite number, not {self.no_target_threshold}"
            )
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {self.batch_size}")
        if self.threads < 0:
            raise UsageError(f"threads must be 0 (all cores) or more, not {self.threads}")

    @property
    def threshold(self) -> float:
        """The value that a set pixel of float predictions lies strictly above."""
        return VALUES[self.values or "logits"]

    def deciding(self) -> dict[str, Any]:
        """Return the options that can change a mask, by name: cached counts depend on these."""
        return {name: value for name, value in asdict(self).items() if name not in WITHOUT_EFFECT}


def refuse_boxes(options: ReadOptions, what: str) -> None:
    """Refuse predictions that are boxes where masks are needed.

    Args:
        options: How predictions are read.
        what: Needs masks, for the message.

    Raises:
        UsageError: The options declare boxes.
    """
    if options.box_format is not None:
        raise UsageError(
            f"{what} needs masks, and box_format={options.box_format} says that these predictions are boxes; "
            "refcocom score and rc.score take boxes"
        )


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"{name} must be {' or '.join(known)}, not {value!r}")
