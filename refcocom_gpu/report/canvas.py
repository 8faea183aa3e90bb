"""A dataset in, the picture of each of its images out; grey where pictures are not at hand, with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from refcocom_gpu.dataset.images import Images
from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.errors import DatasetError, UsageError
from refcocom_gpu.report.overlay import GREY, Pixels


class Canvas:
    """What masks are drawn on: the pictures of a dataset, each decoded when it is asked for.

    Args:
        dataset: The examples.
        pictures: A folder that holds them by `file_name`, or `Images`; None takes those of the dataset, if it holds
            any.

    Attributes:
        problem: Why masks are drawn on grey instead of pictures; empty where all pictures so far were at hand.

    >>> from refcocom_gpu.dataset.table import load_dataset
    >>> canvas = Canvas(load_dataset("sample"))
    >>> canvas.picture(0).shape, canvas.problem
    ((221, 246, 3), '')
    """

    def __init__(self, dataset: Dataset, pictures: Images | str | Path | None = None) -> None:
        self.problem = ""
        self._dataset = dataset
        self._images: Images | None = None
        if isinstance(pictures, Images):
            self._images = pictures
            return
        try:
            self._images = Images(dataset, pictures)
        except (UsageError, DatasetError) as error:
            if pictures is not None:
                raise
            self.problem = str(error)

    @classmethod
    def grey(cls, dataset: Dataset) -> Canvas:
        """Return a canvas that reads no picture."""
        canvas = object.__new__(cls)
        canvas.problem, canvas._dataset, canvas._images = "no picture was asked for", dataset, None
        return canvas

    def picture(self, image: int) -> Pixels:
        """Return the picture of an image as [H, W, 3] bytes, which the caller may change.

        Args:
            image: A row of `dataset.images`.
        """
        if self._images is not None:
            try:
                return np.array(self._images[image])
            except DatasetError as error:
                self.problem = self.problem or str(error)
        # The samples of an image are consecutive; their masks have its size.
        sample = np.searchsorted(self._dataset.sample_image, image)
        size = int(self._dataset.heights[sample]), int(self._dataset.widths[sample])
        return np.full((*size, 3), GREY, np.uint8)
