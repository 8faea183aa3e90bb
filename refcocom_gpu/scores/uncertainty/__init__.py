"""Scores of M models over the same images in, their standard errors, intervals and ranks out.

Expressions of one image are not independent, so images are resampled, never expressions. mIoU, Pr@X and cIoU are each
a ratio of two sums over images (`ratios`). A bootstrap is one matrix product per sum (`resampling`). Two or more models
are compared by intervals that hold jointly (`pairwise`), very many a block of pairs at a time (`blocks`).
Letters: `N` examples, `G` images, `M` models, `B` replicates. All numbers are float64 and depend only on the seed.

>>> import numpy as np
>>> image = [7, 7, 8, 9]
>>> ious = np.array([[0.9, 0.8], [0.7, 0.7], [0.4, 0.2], [0.6, 0.5]])
>>> miou = ratio_by_image(image, ious)
>>> miou.estimate, cluster_se(miou)
(array([0.65, 0.55]), array([0.1205..., 0.1634...]))
>>> rank_intervals(pairwise_intervals(miou))
array([[1, 2], [1, 2]])
"""

from __future__ import annotations

from refcocom_gpu.scores.uncertainty.blocks import critical_value as critical_value
from refcocom_gpu.scores.uncertainty.blocks import like_best_of as like_best_of
from refcocom_gpu.scores.uncertainty.blocks import ranks_of as ranks_of
from refcocom_gpu.scores.uncertainty.blocks import se_beside as se_beside
from refcocom_gpu.scores.uncertainty.pairwise import Pairwise as Pairwise
from refcocom_gpu.scores.uncertainty.pairwise import interval_reach as interval_reach
from refcocom_gpu.scores.uncertainty.pairwise import like_best as like_best
from refcocom_gpu.scores.uncertainty.pairwise import pair_se as pair_se
from refcocom_gpu.scores.uncertainty.pairwise import pairwise_intervals as pairwise_intervals
from refcocom_gpu.scores.uncertainty.pairwise import quantile_place as quantile_place
from refcocom_gpu.scores.uncertainty.pairwise import rank_intervals as rank_intervals
from refcocom_gpu.scores.uncertainty.ratios import Ratio as Ratio
from refcocom_gpu.scores.uncertainty.ratios import cluster_se as cluster_se
from refcocom_gpu.scores.uncertainty.ratios import difference_se as difference_se
from refcocom_gpu.scores.uncertainty.ratios import per_image as per_image
from refcocom_gpu.scores.uncertainty.ratios import ratio_by_image as ratio_by_image
from refcocom_gpu.scores.uncertainty.resampling import bootstrap as bootstrap
