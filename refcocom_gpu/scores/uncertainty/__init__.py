"""Scores of M models over the same images in, their standard errors, intervals and ranks out.

Expressions of one image are not independent, so the image is the unit that is resampled, everywhere. Under that
resampling mIoU, Pr@X and cIoU are ratios of two sums over images (`ratios`); a bootstrap is one matrix product per sum
(`resampling`); many models are compared at once, or two, by intervals that hold jointly (`pairwise`).
Letters: `N` examples, `G` images, `M` models, `B` replicates; all numbers float64, all results a function of the seed.

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

from refcocom_gpu.scores.uncertainty.pairwise import like_best as like_best
from refcocom_gpu.scores.uncertainty.pairwise import pairwise_intervals as pairwise_intervals
from refcocom_gpu.scores.uncertainty.pairwise import quantile_place as quantile_place
from refcocom_gpu.scores.uncertainty.pairwise import rank_intervals as rank_intervals
from refcocom_gpu.scores.uncertainty.pairwise import student_quantile as student_quantile
from refcocom_gpu.scores.uncertainty.ratios import Ratio as Ratio
from refcocom_gpu.scores.uncertainty.ratios import cluster_se as cluster_se
from refcocom_gpu.scores.uncertainty.ratios import difference_se as difference_se
from refcocom_gpu.scores.uncertainty.ratios import per_image as per_image
from refcocom_gpu.scores.uncertainty.ratios import ratio_by_image as ratio_by_image
from refcocom_gpu.scores.uncertainty.resampling import bootstrap as bootstrap
