"""Ground truth, or the table of a result, in; what a leaderboard needs to know of the examples out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from refcocom_gpu.scores.about import about_dataset
from refcocom_gpu.scores.metrics import Ints
from refcocom_gpu.scores.under import sample_numbers
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.utils.arrow import to_numpy


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples that all files of a leaderboard were scored on.

    Attributes:
        image: [N] the image of each.
        sample: [N] a number of the sample of each; those of one sample are consecutive.
        target_area: [N] pixels in its true mask.
        about: What a summary says of the dataset.
    """

    image: Ints
    sample: Ints
    target_area: Ints
    about: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.sample)

    @classmethod
    def of_store(cls, store: MaskStore) -> Examples:
        """Return the examples of ground truth."""
        dataset, sample = store.dataset, store.example_sample
        image = dataset.image_ids[dataset.sample_image[sample]]
        return cls(image, sample, store.areas[sample], about_dataset(dataset))

    @classmethod
    def of_table(cls, table: pa.Table, about: Mapping[str, Any]) -> Examples:
        """Return the examples of a result: of its `per_example` and of what it says of its dataset."""
        image, target_area = (to_numpy(table.column(name)) for name in ("image_id", "target_area"))
        return cls(image, sample_numbers(table), target_area, about)
