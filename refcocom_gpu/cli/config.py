"""The keys of every verb in structured configs: each key has its type, default and meaning, and is declared once.

Hydra checks types against these classes, and `--help` prints them, below the first words of the docstring of the class
that declares them. Options of the stages are inherited: `ReadOptions` by verbs that read predictions, `Rules` by
`construct`. Verbs and groups are files in `conf/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from refcocom_gpu.construct.rules import Rules
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.value_options import ValueOptions
from refcocom_gpu.utils.options import option

MISSING_CHOICES, PRECISIONS, SKIP_CHOICES = ("error", "zero"), ("ge", "gt"), ("error", "skip")


@dataclass
class SourceKeys:
    """Where keys are read from.

    Every verb takes these keys. They are settled before its config is made, which does not hold them.
    """

    config: str | None = option(
        None,
        "YAML file that gives many keys at once, as out/config.yaml of a result does; the command line wins",
        path=True,
    )
    config_dir: str | None = option(
        None,
        "folder of group files of your own, DIR/dataset/NAME.yaml, beside those in ~/.config/refcocom",
        path=True,
    )


@dataclass
class DatasetConfig:
    """Which dataset is used; `dataset=sample` and `dataset=refcoco` choose a whole group."""

    name: str = option(
        "moondream/refcoco-m",
        "Hub name, `sample` for the built-in set, or that of a known set: refcoco, refcoco+, refcocog, grefcoco",
    )
    path: str | None = option(
        None,
        "local snapshot instead: folder of Parquet shards, save_to_disk folder, .parquet, .jsonl, REFER release",
        path=True,
    )
    revision: str | None = option(None, "branch, tag or commit on the Hub")
    split: str = option("validation", "split name")
    split_by: str | None = option(
        None, "unc, umd or google, where a release or a known set is split in several ways"
    )
    key: str = option(
        "sample_id",
        "how predictions name an example: sample_id, or image_position where ids repeat",
    )
    invalid_references: str = option(
        "error",
        "references of the original sets without a sentence or with a mask outside the image: error, or drop",
    )


@dataclass
class EngineConfig:
    """Where files or images are worked on; `engine=serial`, `engine=threads` and `engine=ray` choose one."""

    name: str = option("threads", "serial, threads or ray; the counts are the same")
    workers: int = option(0, "files at a time; 0 for one per core, or per GPU of a Ray cluster")
    address: str | None = option(
        None, "of a running Ray cluster, or auto; null starts Ray on this machine"
    )


# Keys that verbs share. A dataclass lists the fields of its last base first, and `--help` keeps that order.


@dataclass
class _Dataset:
    dataset: DatasetConfig = field(default_factory=DatasetConfig)


@dataclass
class _ManyFiles(_Dataset):
    """What is scored."""

    predictions: Any = option(
        None,
        "files, folders, globs and addresses (s3://, hf://, http://), each a set of its own; "
        "[[A,B],C] makes A and B the shards of one",
        path=True,
        nested=True,
    )
    engine: EngineConfig = field(default_factory=EngineConfig)


@dataclass
class _Counting(ReadOptions):
    """What is counted, and where."""

    missing: str = option(
        "error",
        "examples without a prediction: error, or zero to score them as empty",
        choices=MISSING_CHOICES,
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:i")


@dataclass
class _Scoring(_Counting):
    """What is counted, and by whose rules."""

    convention: str = option(
        "official",
        "convention the scores follow; score also takes those of other evaluators, and all",
    )
    metrics: Any = option(
        "iou",
        "what is counted beside iou, [iou,A,B]: boundary for boundary IoU and Boundary F; score and sweep also take "
        "causes for why each example fails, boxes for box IoU and accuracy, consistency for how alike a mask's answers "
        "are; score takes thresholds, and squashed and warped, the masks of lavt and cris",
        listed=True,
    )


@dataclass
class _Precision(_Scoring):
    """What is counted, and by whose rules."""

    precision: str | None = option(
        None,
        "Pr@X and box accuracy count IoU ≥ X (ge) or > X (gt); null: as the convention does",
        choices=PRECISIONS,
    )


@dataclass
class _Output:
    """What is written and printed."""

    output_dir: str | None = option(None, "folder for the result; null writes nothing", path=True)
    json: bool = option(False, "print JSON instead of the table, also if it fails or quiet=true")
    quiet: bool = option(False, "print nothing but warnings and errors")


@dataclass
class _Masks:
    """What is written and printed."""

    save_masks: bool = option(
        False, "also write the masks that are counted, as native predictions, to output_dir"
    )


@dataclass
class _Report:
    """What is written and printed."""

    report: bool = option(
        False, "write a page to look at, report.html, into output_dir; score keeps the masks too"
    )


@dataclass
class _DrawnReport(_Report):
    """What is written and printed."""

    images: str | None = option(
        None,
        "of report: folder of the pictures by file_name, where the dataset does not hold them",
        path=True,
    )


@dataclass
class _Slices:
    """Which examples are scored apart."""

    slices: Any = option(
        None,
        "kinds of examples scored apart, [A,B] or all: category, supercategory, size, size_quantile, length, "
        "spatial, relational, siblings, complexity, columns of tags; for score also cause, columns of predictions",
        listed=True,
    )
    tags: str | None = option(
        None,
        "CSV or Parquet with sample_id and sentence_idx, or another key, and your columns: slices too",
        path=True,
    )


@dataclass
class ScoreConfig(_Output, _DrawnReport, _Masks, _Slices, _Precision, ValueOptions, _Dataset):
    """Score one set of predictions."""

    predictions: Any = option(
        None,
        "file, folder, glob or list in any accepted format; `sample` and `sample-coarse` are built in",
        path=True,
    )
    box_truth: str | None = option(
        None,
        "boxes are compared with: bbox, those of the records, or mask, the tight boxes of the true masks; "
        "null: bbox where every record has one",
    )
    eval_results: str | None = option(
        None,
        "file NAME.yaml for the .eval_results folder of a model on the Hub, where nothing is uploaded; "
        "for a local copy, dataset.name says of what",
        path=True,
    )
    overwrite: bool = option(False, "replace a result that is in output_dir")


@dataclass
class CompareConfig(_Output, _DrawnReport, _Slices, _Scoring, _Dataset):
    """Compare two results, or two sets of predictions, example by example."""

    pair: Any = option(
        None,
        "A and B: folders that score wrote to output_dir, rows of a sweep (FOLDER:1, FOLDER:MODEL@STEP), or "
        "predictions in any accepted format, which are scored against `dataset`",
        path=True,
    )
    level: float = option(
        0.95, "probability that the interval of a difference covers; of a breakdown, that all do"
    )
    top: int = option(10, "examples and categories shown that differ most")
    replicates: int = option(2_000, "resamples of the images")
    seed: int = option(0, "seed of the resampling")
    overwrite: bool = option(False, "replace a comparison that is in output_dir")


@dataclass
class ExplainConfig(_Counting, _Dataset):
    """Say why other evaluators, or other true masks, give other numbers for the same predictions."""

    result: Any = option(
        None,
        "folder that score wrote to output_dir, or predictions in any accepted format, "
        "which are scored against `dataset`; with truth=, each of several is a set of its own, a sweep's folder many",
        path=True,
    )
    truth: str | None = option(
        None,
        "name or path of another version of the masks of `dataset`: how far the two differ, and what that does to "
        "the scores and ranks of RESULT, if there is one",
        path=True,
    )
    truth_split: str | None = option(None, "its split; null for that of `dataset`")
    reported: str | None = option(
        None, "a published number, 0.712, 71.2 or 71.2%: which scores come within its tolerance"
    )
    tolerance: str | None = option(
        None, "in the unit of reported; null: half of the last digit that it has"
    )
    json: bool = option(False, "print JSON instead of the table, also if it fails or quiet=true")
    quiet: bool = option(False, "print nothing but warnings and errors")


@dataclass
class SweepConfig(_Output, _Report, _Masks, _Precision, _ManyFiles):
    """Score many prediction files into one folder; stopped at any moment, it goes on where it was."""

    manifest: str | None = option(
        None,
        "CSV, JSONL or Parquet instead: columns path, model and any others",
        path=True,
    )
    threads: int = option(1, "CPU threads of each file; 0 for all cores, for engine=serial")
    batch_size: int = option(256, "dense predictions held in memory at a time, by each worker")
    device: str = option("auto", "auto, cpu, cuda or cuda:i; with engine=ray auto, cpu or cuda")
    replicates: int = option(2_000, "bootstrap replicates of the leaderboard's intervals")
    seed: int = option(0, "seed of the bootstrap")
    best_per: str | None = option(
        None,
        "model, or a column of the manifest: rank only the best of each, such as its best checkpoint; "
        "a choice made on this set, which makes its score too high",
    )
    verify: bool = option(
        False, "hash every file anew, also where size and time of change are as before"
    )
    output_dir: str | None = option(
        None, "folder for the results; what it holds already is not scored again", path=True
    )


@dataclass
class ConstructConfig(_Output, Rules, ReadOptions, _ManyFiles):
    """Make a refined dataset of an original one; stopped at any moment, it goes on where it was."""

    predictions: Any = option(
        None,
        "prediction files, each the masks of one model; [[A,B],C] makes A and B the shards of one",
        path=True,
        nested=True,
    )
    images: str | None = option(
        None, "folder of the pictures by file_name, where the dataset does not hold them", path=True
    )
    sam: Any = option(
        None,
        "SAM-family models of Transformers that propose too: Hub names or folders, [A,B]",
        path=True,
        listed=True,
    )
    sam_revision: str | None = option(
        None, "branch, tag or commit of the SAM-family model on the Hub"
    )
    grabcut: bool = option(False, "OpenCV's GrabCut proposes too: it needs pictures and no model")
    device: str = option("auto", "of models: auto, cpu, cuda or cuda:i")
    missing: str = option(
        "error", "examples without a prediction: error, or skip", choices=SKIP_CHOICES
    )
    words: str | None = option(
        None, "file of words, one a line, that remove the expressions that hold them", path=True
    )
    classifier: str | None = option(
        None, "text classifier of Transformers that finds harmful expressions: Hub name or folder"
    )
    classifier_revision: str | None = option(None, "branch, tag or commit of the classifier")
    classifier_labels: Any = option(None, "its labels that are harmful, [A,B]", listed=True)
    report: bool = option(
        False, "write a page to look at, audit/report.html: every mask before and after"
    )
    pictures: str = option(
        "auto",
        "pictures in the written dataset: auto embeds those at hand, embed and path need all, none",
    )
    shard_mb: int = option(500, "size at which a Parquet shard ends, megabytes")
    truth: str | None = option(
        None, "dataset with exact masks of the same samples: judges what was made", path=True
    )
    output_dir: str | None = option(
        None, "folder for the dataset; what is known of an image is not asked again", path=True
    )


@dataclass
class RawAnswers:
    """Options of the sources of raw answers; each source takes some of them, and refuses the others."""

    source: str | None = option(
        None,
        "IN holds raw answers of a model: gemini, moondream, qwen, florence, points, svg or rle",
    )
    points: str | None = option(None, "of gemini: order of its points, yx or xy")
    version: str | None = option(None, "of qwen: 2, 2.5 or 3")
    processed_size: Any = option(
        None, "of qwen 2.5: [height,width] of the image after the processor, where no row has it"
    )
    boxes: str | None = option(
        None,
        "of qwen: fill takes a box for the mask of its pixels; of qwen, gemini, florence: keep leaves it a box",
    )
    renderer: str | None = option(
        None, "of moondream and svg: resvg draws paths as Moondream's engine does"
    )
    scale: str | None = option(None, "of points: pixels, normalized (0…1) or thousandths (0…1000)")


@dataclass
class _FromDataset(_Dataset):
    """Which set the predictions are for."""

    from_dataset: str | None = option(
        None,
        "name or path of the dataset that IN is for; each prediction goes to the example of `dataset` with the "
        "same image, object and text",
        path=True,
    )
    from_split: str | None = option(None, "its split; null for that of `dataset`")


@dataclass
class ConvertConfig(ReadOptions, RawAnswers, _FromDataset):
    """Write predictions, a model's raw answers or a run on another dataset as native predictions."""

    paths: Any = option(
        None,
        "IN and OUT: predictions in any accepted format, raw answers (source=…) or a pickle of results, and "
        "the .parquet or .jsonl to write; several IN are the shards of one set",
        path=True,
    )
    missing: str = option(
        "error",
        "examples without a prediction or a readable answer: error, or skip to leave them out",
        choices=SKIP_CHOICES,
    )
    overwrite: bool = option(False, "replace OUT")
    json: bool = option(False, "print JSON instead of the table, also if it fails or quiet=true")
    quiet: bool = option(False, "print nothing but warnings and errors")


@dataclass
class _Pictures:
    """What is drawn and written."""

    images: str | None = option(
        None, "folder of the pictures by file_name, where the dataset does not hold them", path=True
    )
    dataset: str | None = option(
        None, "name or path of the dataset of a result; null: the one that it names", path=True
    )
    overwrite: bool = option(False, "replace the file")
    quiet: bool = option(False, "print nothing but warnings and errors")


@dataclass
class ReportConfig(_Pictures):
    """Write a page to look at: of a result, of two compared, of a sweep, or of a dataset before and after."""

    results: Any = option(
        None,
        "a folder that score wrote or a row of a sweep (FOLDER:1); two of them; the folder of a sweep; or, with "
        "original, a refined dataset",
        path=True,
    )
    original: str | None = option(
        None, "name or path of the dataset that was refined: its masks before and after", path=True
    )
    predictions: Any = option(
        None, "predictions of a result that holds no masks, to draw them", path=True
    )
    page: str | None = option(
        None, "the file; null: report.html in the folder of the results", path=True
    )
    pictures: str = option(
        "embed", "embed draws some examples into the page, link all into a folder beside it; none"
    )


@dataclass
class ShowConfig(_Pictures):
    """Draw one example: its picture, true mask, and the prediction of a result that holds masks."""

    example: Any = option(
        None,
        "WHAT and KEY: a result or the name or path of a dataset, and SAMPLE_SENTENCE or an index",
        path=True,
    )
    output: str | None = option(None, "the PNG; null: KEY.png", path=True)


@dataclass
class ExportConfig(_Output):
    """Write a dataset, or a result with its masks, as files of another tool."""

    what: str | None = option(
        None,
        "folder that score wrote with save_masks=true, a row of such a sweep (FOLDER:1), or the name or path of a "
        "dataset",
        path=True,
    )
    format: str = option(
        "coco",
        "coco (annotations and results), or fiftyone (a dataset)",
        choices=("coco", "fiftyone"),
    )
    dataset: str | None = option(
        None, "name or path of the dataset of a result; null: the one that it names", path=True
    )
    images: str | None = option(
        None,
        "of fiftyone: folder of the pictures by file_name, where the dataset does not hold them",
        path=True,
    )
    output_dir: str | None = option(None, "folder for the files", path=True)
    overwrite: bool = option(False, "replace an export that is in output_dir")


@dataclass
class PublishConfig(_Output):
    """Write what can be published of results: a section of a model card, a file for the Hub, two tables."""

    results: Any = option(
        None,
        "folders that score wrote to output_dir, rows of a sweep (FOLDER:1), or a sweep for all of its rows; the card "
        "is that of the first",
        path=True,
    )
    names: Any = option(None, "names of the models, [A,B], one for each result", listed=True)
    dataset_id: str | None = option(
        None, "owner/name on the Hub of the dataset of which a local copy was scored"
    )
    output_dir: str | None = option(None, "folder for the files; nothing is uploaded", path=True)
    overwrite: bool = option(False, "replace what an earlier publish wrote to output_dir")


@dataclass
class CacheConfig(_Dataset):
    """Show, build or clear what is cached on disk."""

    action: str = option(
        "list",
        "list, path, build (the store of `dataset`) or clear",
        choices=("list", "path", "build", "clear"),
    )
    threads: int = option(0, "CPU threads; 0 for all cores")
    quiet: bool = option(False, "print nothing but warnings and errors")


@dataclass
class CompletionConfig:
    """Print a script that completes verbs, keys and their values in your shell."""

    shell: str | None = option(None, "bash, zsh or fish", choices=("bash", "zsh", "fish"))


OUTPUT_KEYS = ("output_dir", "overwrite", "json", "quiet")
"""Keys that say what becomes of a result; `--help` lists them last."""

VERBS: dict[str, tuple[type, str]] = {
    "score": (ScoreConfig, "predictions"),
    "compare": (CompareConfig, "pair"),
    "explain": (ExplainConfig, "result"),
    "sweep": (SweepConfig, "predictions"),
    "construct": (ConstructConfig, "predictions"),
    "convert": (ConvertConfig, "paths"),
    "report": (ReportConfig, "results"),
    "show": (ShowConfig, "example"),
    "export": (ExportConfig, "what"),
    "publish": (PublishConfig, "results"),
    "cache": (CacheConfig, "action"),
    "completion": (CompletionConfig, "shell"),
}
"""For each verb, its config and the key that positional arguments fill."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key as `--help` shows it; text is taken as it is, and Hydra parses other values."""

    name: str
    default: Any
    meaning: str
    is_path: bool
    is_text: bool
    is_listed: bool = False
    is_nested: bool = False
    is_mapping: bool = False
    choices: tuple[str, ...] = ()
    declared_by: type = object

    @property
    def shown(self) -> str:
        """The key with its default, as it would be typed."""
        if self.is_mapping:
            return f"{self.name}.NAME=…"
        default = "null" if self.default is None else str(self.default)
        return f"{self.name}={default.lower() if isinstance(self.default, bool) else default}"


def keys_of(config: type, prefix: str = "") -> Iterator[Key]:
    """Yield all keys of a config, nested ones with their dots."""
    for entry in fields(config):
        nested: Any = entry.default_factory
        if nested is not MISSING:
            yield from keys_of(nested, f"{prefix}{entry.name}.")
        else:
            is_path, is_listed = entry.metadata["path"], entry.metadata["listed"]
            is_text = is_path or is_listed or str(entry.type).startswith("str")
            yield Key(
                f"{prefix}{entry.name}",
                entry.default,
                entry.metadata["meaning"],
                is_path,
                is_text,
                is_listed,
                entry.metadata["nested"],
                entry.metadata["mapping"],
                ("true", "false") if isinstance(entry.default, bool) else entry.metadata["choices"],
                # The first class to declare it; a verb may declare it again, with another default.
                next(
                    k
                    for k in reversed(config.__mro__)
                    if entry.name in vars(k).get("__annotations__", ())
                ),
            )


def conf_dir() -> Path:
    """Return the folder `conf`: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def groups(config: type) -> dict[str, list[str]]:
    """Return the config groups of a verb and their options: folders of `conf` and the files in each."""
    prefixes = {name for name, _, rest in (k.name.partition(".") for k in keys_of(config)) if rest}
    return {
        name: sorted(path.stem for path in (conf_dir() / name).glob("*.yaml"))
        for name in sorted(prefixes)
    }
