"""The CPU ops: NumPy arrays in, integer counts out. One module each; their Numba kernels are in `numba/`.

Every function takes `threads` (0: all cores this process may use) and splits its rows over them. Kernels are imported
at the first call: importing this package imports only NumPy. Start at `rle.py`.
"""

from refcocom_kernels.cpu.boundary import DILATION_RATIO as DILATION_RATIO
from refcocom_kernels.cpu.boundary import Boundaries as Boundaries
from refcocom_kernels.cpu.boundary import BoundaryCounts as BoundaryCounts
from refcocom_kernels.cpu.boundary import boundaries as boundaries
from refcocom_kernels.cpu.boundary import boundary_distance as boundary_distance
from refcocom_kernels.cpu.boundary import mask_boundary_counts as mask_boundary_counts
from refcocom_kernels.cpu.boundary import run_boundary_counts as run_boundary_counts
from refcocom_kernels.cpu.contours import REACH_RATIO as REACH_RATIO
from refcocom_kernels.cpu.contours import Contours as Contours
from refcocom_kernels.cpu.contours import contours as contours
from refcocom_kernels.cpu.differences import largest_ratios as largest_ratios
from refcocom_kernels.cpu.differences import squared_differences as squared_differences
from refcocom_kernels.cpu.encode import mask_runs as mask_runs
from refcocom_kernels.cpu.groups import group_intersections as group_intersections
from refcocom_kernels.cpu.groups import group_votes as group_votes
from refcocom_kernels.cpu.logits import LogitCounts as LogitCounts
from refcocom_kernels.cpu.logits import logit_counts as logit_counts
from refcocom_kernels.cpu.logits import logit_curve as logit_curve
from refcocom_kernels.cpu.logits import logit_masks as logit_masks
from refcocom_kernels.cpu.logits import logit_runs as logit_runs
from refcocom_kernels.cpu.logits import value_kinds as value_kinds
from refcocom_kernels.cpu.masks import MaskCounts as MaskCounts
from refcocom_kernels.cpu.masks import mask_counts as mask_counts
from refcocom_kernels.cpu.masks import mask_list_counts as mask_list_counts
from refcocom_kernels.cpu.masks import packed_counts as packed_counts
from refcocom_kernels.cpu.masks import pairwise_intersections as pairwise_intersections
from refcocom_kernels.cpu.masks import rle_pack as rle_pack
from refcocom_kernels.cpu.masks import word_offsets_for as word_offsets_for
from refcocom_kernels.cpu.pool import available_threads as available_threads
from refcocom_kernels.cpu.pool import offsets_from as offsets_from
from refcocom_kernels.cpu.rle import Runs as Runs
from refcocom_kernels.cpu.rle import rle_counts as rle_counts
from refcocom_kernels.cpu.rle import rle_parse as rle_parse
from refcocom_kernels.cpu.rle import rle_write as rle_write
from refcocom_kernels.cpu.tally import tally as tally
