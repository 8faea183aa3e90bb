"""RefCOCO-M records in, three column tables out: images, samples, examples.

(skeleton: the loaders are to be written; the class below is the contract)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

KeyKind = Literal["sample_id", "image_position"]

PUBLISHED = {"images": 1190, "samples": 2080, "examples": 5598}
"""What the dataset card of RefCOCO-M states."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A referring-segmentation set as three tables; a row number is an identity.

    Attributes:
        images: `image_id` int64, `file_name` string.
        samples: `sample_id` int64, `image` int64 (row of `images`), `position` int64 (0… within its image),
            `category` string, `supercategory` string, `height` int64, `width` int64,
            `counts` large_binary (COCO compressed RLE string, not yet validated).
        examples: `sample` int64 (row of `samples`), `sentence_idx` int64, `sentence` string.
            Sorted by (sample, sentence_idx): the examples of a sample are consecutive; the row number is the *index*.
        key: How predictions name an example: `(sample_id, sentence_idx)` or `(image_id, position, sentence_idx)`.
        source: What was asked for: a Hub name, a path, or `sample`.
        revision: The resolved commit of a Hub dataset, else None.
        split: Split name.
        fingerprint: 32 hex digits, a hash of the content above: equal content has equal fingerprint from any source.
    """

    images: pa.Table
    samples: pa.Table
    examples: pa.Table
    key: KeyKind
    source: str
    revision: str | None
    split: str
    fingerprint: str
