"""The named conventions of evaluators, as data: how each makes scores of counts, and what counts cannot show.

Each was read from its source at the commit given. `under` computes scores by them, `explain` says why they differ.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from refcocom_gpu.errors import UsageError
from refcocom_gpu.masks.squash import SQUASHED
from refcocom_gpu.masks.warp import WARPED
from refcocom_gpu.scores.metrics import PRECISION_THRESHOLDS

Sentences = Literal["all", "first", "distinct"]

POLYGONS, ROUNDING = "polygons of the ground truth", "the rounding of OpenCV 4"
"""What a convention needs beyond counts of masks."""

METRIC_NEEDS = {
    SQUASHED: "resized ground truth: score again with",
    WARPED: "logits: score its 104² ones with letterbox=center",
}
"""What a convention needs where the masks of its metric were not counted."""

FLOAT32 = "float32 sums"
"""The caveat of a convention that adds in float32; on simulated sets of 5,598 examples it is < 0.001 points."""


@dataclass(frozen=True, slots=True)
class Convention:
    """How counts become scores. The defaults are those of the official convention.

    Attributes:
        name: The name that users type.
        empty: IoU of an example whose two masks are both empty.
        about: A description of one line, for people.
        source: Repository and commit that were read.
        files: Files and functions in it.
        names: What it calls mIoU and cIoU; None for a score that it does not print.
        thresholds: IoU values X of the Pr@X that it prints.
        strict: Pr@X counts IoU > X instead of IoU ≥ X.
        float32_thresholds: X is rounded to float32 before the comparison: an IoU of exactly 0.7 is above it.
        sentences: The examples of an instance that are scored: `all`; the `first`; of equal texts one (`distinct`).
        counts_missing: Examples without a prediction count as empty; otherwise they are left out.
        by_label: An example without a target scores whether it is rejected, and Pr@X leaves it out.
        empty_sum: cIoU where every union is empty.
        epsilon: Added to the union of each example.
        sum_epsilon: Added to the sum of unions of cIoU.
        count_epsilon: Added to the number of examples of mIoU.
        float32: IoUs and sums are float32. The rounding of a sum depends on its order, which counts do not hold.
        percent: It prints percent, not fractions.
        resolution: Size and threshold of the masks that it compares, to be read after "masks at".
        metric: The metric that counts the masks that it compares, where they have not the image's size.
        needs: What it needs beyond counts: `POLYGONS`, `ROUNDING`.
        notes: What else may make its number differ; a sentence each.
    """

    name: str
    empty: float
    about: str
    source: str = ""
    files: tuple[str, ...] = ()
    names: tuple[str | None, str | None] = ("mIoU", "cIoU")
    thresholds: tuple[float, ...] = PRECISION_THRESHOLDS
    strict: bool = False
    float32_thresholds: bool = False
    sentences: Sentences = "all"
    counts_missing: bool = True
    by_label: bool = False
    empty_sum: float = 1.0
    epsilon: float = 0.0
    sum_epsilon: float = 0.0
    count_epsilon: float = 0.0
    float32: bool = False
    percent: bool = True
    resolution: str = "the original size"
    metric: str | None = None
    needs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def caveat(self, *, is_counted: bool = False) -> str:
        """Return why the scores computed from counts are not exactly those that it prints; nothing if they are.

        Args:
            is_counted: Whether the masks that it compares were counted; see `metric`.

        >>> CONVENTIONS["cris"].caveat(), CONVENTIONS["lisa"].caveat(), CONVENTIONS["official"].caveat()
        ('needs logits: score its 104² ones with letterbox=center convention=cris', 'float32 sums', '')
        >>> CONVENTIONS["lavt"].caveat(), CONVENTIONS["lavt"].caveat(is_counted=True)
        ('needs resized ground truth: score again with convention=lavt', '')
        """
        if self.metric is not None and not is_counted:
            return f"needs {METRIC_NEEDS[self.metric]} convention={self.name}"
        if self.needs:
            return f"needs {' and '.join(self.needs)}"
        return FLOAT32 if self.float32 else ""


PADDED = "Its distributed sampler repeats examples where their number is no multiple of the ranks."
OPENCV = (
    "OpenCV 4 rounds the coordinates of the warp to 1/32 pixel; OpenCV 5, and this package, do not."
)
NAN = float("nan")

OFFICIAL = Convention(
    name="official",
    empty=1.0,
    about="RefCOCO-M's dataset card: mean IoU over all (image, sentence) pairs, original resolution",
    source="moondream/refcoco-m (dataset card)",
)

LISA = Convention(
    name="lisa",
    empty=1.0,
    about="LISA: mean and cumulative IoU of all sentences, in float32",
    source="dvlab-research/LISA@3cb2d43",
    files=("train_ds.py: validate", "utils/utils.py: intersectionAndUnionGPU, AverageMeter"),
    names=("gIoU", "cIoU"),
    thresholds=(),
    empty_sum=0.0,
    epsilon=1e-5,
    sum_epsilon=1e-10,
    count_epsilon=1e-5,
    float32=True,
    percent=False,
    resolution="the original size, by SAM's two resizes; logit > 0",
    notes=(PADDED,),
)

_CRIS = Convention(
    name="cris",
    empty=0.0,
    about="CRIS, validation: the first sentence of each instance, Pr@X with >",
    source="DerrickWang005/CRIS.pytorch@e596332",
    files=(
        "engine/engine.py: validate",
        "utils/dataset.py: RefDataset, getTransformMat",
        "config/refcoco/cris_r50.yaml: input_size",
    ),
    names=("IoU", None),
    strict=True,
    float32_thresholds=True,
    sentences="first",
    epsilon=1e-6,
    empty_sum=0.0,
    resolution="the original size: the input is letterboxed to 416², the sigmoid of 104² logits resized to 416² "
    "(bicubic, aligned corners), warped back (bicubic) and cut at > 0.35",
    metric=WARPED,
    needs=(ROUNDING,),
    notes=(PADDED, OPENCV),
)

CONVENTIONS = {
    c.name: c
    for c in [
        OFFICIAL,
        LISA,
        replace(
            LISA,
            name="evf_sam",
            about="EVF-SAM: as LISA, with a smaller epsilon",
            source="hustvl/EVF-SAM@9935dc5",
            files=("eval.py: validate", "utils/utils.py: AverageMeter"),
            epsilon=1e-10,
            resolution="the original size; logit > 0",
        ),
        replace(
            LISA,
            name="gsva",
            about="GSVA: as LISA; a rejected expression without a target scores 1",
            source="LeapLabTHU/GSVA@a1af9b2",
            files=("solver.py: eval_gres, validate", "utils/meter.py: AverageMeter"),
            by_label=True,
            epsilon=1e-8,
            resolution="the original size; logit ≥ 0",
            notes=(
                PADDED,
                "It rejects by a token: a run carries it as `no_target`; without that, an empty mask "
                "stands for it here.",
                "Where there is a target, it scores the mask of a rejected expression; here such a mask is empty.",
                "On sets without such expressions its `validate` adds 1e-5 to the union and takes logit > 0.",
                "On Ref-ZOM a missed one adds nothing to the sum of unions.",
            ),
        ),
        Convention(
            name="rela",
            empty=1.0,
            about="ReLA (gRefCOCO): expressions without a target are judged by their label",
            source="henghuiding/ReLA@3ca9551",
            files=(
                "gres_model/evaluation/refer_evaluation.py: ReferEvaluator",
                "gres_model/data/dataset_mappers/refcoco_mapper.py: RefCOCOMapper",
                "gres_model/GRES.py",
                "configs/referring_R50.yaml: IMAGE_SIZE",
            ),
            names=("gIoU", "cIoU"),
            thresholds=(0.7, 0.8, 0.9),
            by_label=True,
            empty_sum=NAN,
            resolution="480² without the aspect ratio: ground-truth polygons squashed and drawn there; the larger of "
            "two channels (bilinear, half-pixel centres)",
            metric=SQUASHED,
            needs=(POLYGONS,),
            notes=(
                "Here the true masks are squashed by nearest, as LAVT's are: a dataset holds no polygons.",
                "It rejects by a classifier: a run carries it as `no_target`; without, an empty mask stands "
                "for it here.",
                "Where there is a target, it adds a rejected mask to the sum of unions; here such a mask is empty.",
                "Its first version (June 2023) had other T-acc and N-acc; see `scores.no_target`.",
            ),
        ),
        Convention(
            name="lavt",
            empty=0.0,
            about="LAVT: all sentences, two empty masks score 0",
            source="yz93/LAVT-RIS@874fe4f",
            files=(
                "test.py: evaluate, computeIoU",
                "args.py: img_size",
                "data/dataset_refer_bert.py: ReferDataset",
                "transforms.py: Resize",
                "lib/_utils.py: _LAVTSimpleDecode",
            ),
            names=("Mean IoU", "overall IoU"),
            empty_sum=NAN,
            resolution="480² without the aspect ratio (img_size), ground truth by nearest; the larger of two channels "
            "(bilinear, aligned corners)",
            metric=SQUASHED,
        ),
        _CRIS,
        replace(
            _CRIS,
            name="cris_test",
            about="CRIS, test: all sentences, Pr@X with >",
            files=("engine/engine.py: inference", *_CRIS.files[1:]),
            sentences="all",
            notes=(OPENCV,),
        ),
        Convention(
            name="mmdet",
            empty=0.0,
            about="MMDetection's RefSegMetric: the first sentence of each instance, nan → 0",
            source="open-mmlab/mmdetection@3720a13",
            files=(
                "mmdet/evaluation/metrics/refseg_metric.py: RefSegMetric",
                "mmdet/datasets/refcoco.py: RefCocoDataset",
                "configs/_base_/datasets/refcoco.py",
            ),
            thresholds=(),
            sentences="first",
            empty_sum=NAN,
            float32=True,
            resolution="the size of the model's output",
            notes=(
                "`text_mode` chooses the sentences; select_first is that of its configs.",
                "Of several references to one annotation, the last is scored.",
            ),
        ),
        Convention(
            name="sa2va",
            empty=1.0,
            about="Sa2VA: as LISA, on one process; an answer without a mask is empty",
            source="bytedance/Sa2VA@9832e1a",
            files=(
                "projects/sa2va/evaluation/dataset/RES.py: RESDataset.evaluate",
                "projects/sa2va/hf/models/modeling_sa2va_chat.py",
            ),
            names=("GIoU", "CIoU"),
            thresholds=(),
            empty_sum=0.0,
            epsilon=1e-5,
            sum_epsilon=1e-10,
            float32=True,
            percent=False,
            resolution="the original size (bilinear, half-pixel centres); sigmoid > 0.5; several masks are joined",
        ),
        Convention(
            name="x_sam",
            empty=1.0,
            about="X-SAM: the distinct sentences of each instance for which a prediction arrived",
            source="wanghao9610/X-SAM@2e76946",
            files=(
                "xsam/xsam/evaluation/evaluators/img_refseg_evaluator.py: ImgRefSegEvaluator",
                "xsam/xsam/evaluation/utils/iou.py: IouStat",
                "xsam/xsam/dataset/img_refseg_dataset.py",
            ),
            names=("gIoU", "cIoU"),
            thresholds=(),
            sentences="distinct",
            counts_missing=False,
            resolution="the original size; sigmoid > 0.5",
        ),
    ]
}

ALL = "all"
"""The name that stands for every convention; `score` prints them beside the official one."""


METRICS = tuple(dict.fromkeys(c.metric for c in CONVENTIONS.values() if c.metric is not None))
"""The metrics that all conventions together need."""


def get_convention(name: str) -> Convention:
    """Return the convention of this name.

    Raises:
        UsageError: For an unknown name; the message lists the known ones.

    >>> get_convention("official").empty
    1.0
    """
    if name not in CONVENTIONS:
        raise UsageError(f"unknown convention {name!r}; known: {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]


def check_official(name: str, where: str) -> None:
    """Refuse another convention than the official one where all examples are set against each other.

    Args:
        name: Of the convention.
        where: What refuses it, for the message.

    Raises:
        UsageError: For an unknown or another one.

    >>> check_official("official", "a sweep")
    """
    if get_convention(name) is not OFFICIAL:
        raise UsageError(
            f"{where} follows the convention official, not {name!r}; refcocom score and explain, and "
            f"Result.under({name!r}), give scores under it"
        )
