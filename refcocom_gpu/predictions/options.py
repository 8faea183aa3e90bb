"""What prediction files cannot say of themselves: declared once, passed whole, written whole into a result."""

from __future__ import annotations

from dataclasses import dataclass

from refcocom_gpu.errors import UsageError

VALUES = {"logits": 0.0, "probabilities": 0.5}
"""What float predictions are, and the value that a set pixel lies strictly above."""

RESIZES = ("direct", "sam")
"""How logits reach the image: in one step, or through the padded input as SAM's postprocessing does."""

POLYGONS = ("pixels", "normalized")
"""Scale of polygon coordinates: pixels of the image, or 0…1 of its width and height."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What a prediction file cannot say of itself.

    Attributes:
        values: What float arrays are: `logits` (set above 0) or `probabilities` (set above 0.5).
        letterbox: Side of the padded square input when the image fills only its top-left part (SAM, LISA: 1024).
        resize: `direct` resizes the valid region to the image; `sam` goes through the padded input first.
        polygons: Scale of polygon coordinates; None refuses polygons, because a guess can be wrong.
        batch_size: Predictions held in memory at a time.
        read_ahead: Read the next batch in a thread of its own while one is counted.
    """

    values: str = "logits"
    letterbox: int | None = None
    resize: str = "direct"
    polygons: str | None = None
    batch_size: int = 256
    read_ahead: bool = True

    def __post_init__(self) -> None:
        _one_of("values", self.values, tuple(VALUES))
        _one_of("resize", self.resize, RESIZES)
        if self.polygons is not None:
            _one_of("polygons", self.polygons, POLYGONS)
        if self.letterbox is not None and self.letterbox < 1:
            raise UsageError(
                f"letterbox must be the side of the padded input, not {self.letterbox}"
            )
        if self.resize == "sam" and self.letterbox is None:
            raise UsageError("resize=sam needs letterbox=SIDE, the side of the padded input")
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {self.batch_size}")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"{name} must be {' or '.join(known)}, not {value!r}")
