"""Structured configs: every key of every verb with its type, default and meaning, said once.

Hydra checks types against these classes, `--help` prints them, and nothing else repeats them. Verbs and groups are
files in `conf/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any


def key(
    default: Any, meaning: str, *, path: bool = False, listed: bool = False, nested: bool = False
) -> Any:
    """A field with its meaning.

    Args:
        default: Of the key.
        meaning: What `--help` says of it.
        path: Values are file names: `~` is expanded, and the main key takes lists.
        listed: A list is taken, also where it is not the main key; elements are text.
        nested: A list may hold lists.
    """
    kinds = {"path": path, "listed": listed, "nested": nested}
    return field(default=default, metadata={"meaning": meaning, **kinds})


def same_as(config: type, name: str) -> Any:
    """A field with the default and the meaning that it has in another config."""
    (entry,) = (entry for entry in fields(config) if entry.name == name)
    return field(default=entry.default, metadata=entry.metadata)


@dataclass
class DatasetConfig:
    """Which set is scored; `dataset=sample` and `dataset=refcoco-m` choose a whole group."""

    name: str = key("moondream/refcoco-m", "Hub name, or `sample` for the built-in set")
    path: str | None = key(
        None,
        "local snapshot instead: folder of Parquet shards, save_to_disk folder, .parquet, .jsonl, REFER release",
        path=True,
    )
    revision: str | None = key(None, "branch, tag or commit on the Hub")
    split: str = key("validation", "split name")
    key: str = key(
        "sample_id",
        "how predictions name an example: sample_id, or image_position where ids repeat",
    )


@dataclass
class ScoreConfig:
    """Score one set of predictions."""

    predictions: Any = key(
        None,
        "file, folder, glob or list in any accepted format; `sample` and `sample-coarse` are built in",
        path=True,
    )
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    device: str = key("auto", "auto, cpu, cuda or cuda:i")
    threads: int = key(0, "CPU threads; 0 for all cores")
    batch_size: int = key(256, "dense predictions held in memory at a time")
    missing: str = key(
        "error", "examples without a prediction: error, or zero to score them as empty"
    )
    convention: str = key("official", "named convention the scores follow")
    precision: str = key("ge", "Pr@X counts IoU ≥ X (ge) or IoU > X (gt)")
    values: str = key(
        "logits", "what float arrays are: logits (set above 0) or probabilities (set above 0.5)"
    )
    letterbox: int | None = key(
        None,
        "side of the padded square input when the image fills only its top-left part, such as 1024",
    )
    resize: str = key(
        "direct", "letterboxed logits to the image: direct, or sam (through the padded input)"
    )
    polygons: str | None = key(
        None, "scale of polygon coordinates: pixels or normalized; null refuses polygons"
    )
    output_dir: str | None = key(None, "folder for the result; null writes nothing", path=True)
    eval_results: str | None = key(
        None,
        "file NAME.yaml for the .eval_results folder of a model on the Hub, where nothing is uploaded; "
        "for a local copy, dataset.name says of what",
        path=True,
    )
    overwrite: bool = key(False, "replace a result that is in output_dir")
    json: bool = key(False, "print the summary as JSON instead of the table")
    quiet: bool = key(False, "print nothing but warnings and errors")


@dataclass
class CompareConfig:
    """Compare two results, or two sets of predictions, example by example."""

    pair: Any = key(
        None,
        "A and B: folders that score wrote to output_dir, or predictions in any accepted format, "
        "which are scored against `dataset`",
        path=True,
    )
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    level: float = key(
        0.95, "probability that the interval of a difference covers; of a breakdown, that all do"
    )
    top: int = key(10, "examples and categories shown that differ most")
    replicates: int = key(2_000, "resamples of the images")
    seed: int = key(0, "of the resampling")
    device: str = same_as(ScoreConfig, "device")
    threads: int = same_as(ScoreConfig, "threads")
    batch_size: int = same_as(ScoreConfig, "batch_size")
    missing: str = same_as(ScoreConfig, "missing")
    convention: str = same_as(ScoreConfig, "convention")
    values: str = same_as(ScoreConfig, "values")
    letterbox: int | None = same_as(ScoreConfig, "letterbox")
    resize: str = same_as(ScoreConfig, "resize")
    polygons: str | None = same_as(ScoreConfig, "polygons")
    output_dir: str | None = key(
        None,
        "folder for comparison.json and comparison.parquet; null writes nothing",
        path=True,
    )
    overwrite: bool = key(False, "replace a comparison that is in output_dir")
    json: bool = key(False, "print comparison.json instead of the table")
    quiet: bool = same_as(ScoreConfig, "quiet")


@dataclass
class EngineConfig:
    """Where the files of a sweep are scored; `engine=serial`, `engine=threads` and `engine=ray` choose one."""

    name: str = key("threads", "serial, threads or ray; the counts are the same")
    workers: int = key(0, "files at a time; 0 for one per core, or per GPU of a Ray cluster")
    address: str | None = key(
        None, "of a running Ray cluster, or auto; null starts Ray on this machine"
    )


@dataclass
class SweepConfig:
    """Score many prediction files into one folder; stopped at any moment, it goes on where it was."""

    predictions: Any = key(
        None,
        "files, folders, globs and addresses (s3://, hf://, http://), each a set of its own; "
        "[[A,B],C] makes A and B the shards of one",
        path=True,
        nested=True,
    )
    manifest: str | None = key(
        None,
        "CSV, JSONL or Parquet instead: columns path, model and any others",
        path=True,
    )
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    device: str = key("auto", "auto, cpu, cuda or cuda:i; with engine=ray auto, cpu or cuda")
    threads: int = key(1, "CPU threads of each file; 0 for all cores, for engine=serial")
    batch_size: int = key(256, "dense predictions held in memory at a time, by each worker")
    missing: str = same_as(ScoreConfig, "missing")
    convention: str = same_as(ScoreConfig, "convention")
    precision: str = same_as(ScoreConfig, "precision")
    values: str = same_as(ScoreConfig, "values")
    letterbox: int | None = same_as(ScoreConfig, "letterbox")
    resize: str = same_as(ScoreConfig, "resize")
    polygons: str | None = same_as(ScoreConfig, "polygons")
    replicates: int = key(2_000, "bootstrap replicates of the leaderboard's intervals")
    seed: int = key(0, "seed of the bootstrap")
    output_dir: str | None = key(
        None, "folder for the results; what it holds already is not scored again", path=True
    )
    json: bool = key(False, "print what was done as JSON")
    quiet: bool = key(False, "print nothing but warnings and errors")


@dataclass
class ConstructConfig:
    """Make a refined dataset of an original one; stopped at any moment, it goes on where it was."""

    predictions: Any = key(
        None,
        "prediction files, each the masks of one model; [[A,B],C] makes A and B the shards of one",
        path=True,
        nested=True,
    )
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    images: str | None = key(
        None, "folder of the pictures by file_name, where the dataset does not hold them", path=True
    )
    sam: Any = key(
        None,
        "SAM-family models of Transformers that propose too: Hub names or folders, [A,B]",
        path=True,
        listed=True,
    )
    sam_revision: str | None = key(None, "branch, tag or commit of the SAM-family model on the Hub")
    grabcut: bool = key(False, "OpenCV's GrabCut proposes too: it needs pictures and no model")
    device: str = key("auto", "of models: auto, cpu, cuda or cuda:i")
    missing: str = key("error", "examples without a prediction: error, or skip")
    values: str = same_as(ScoreConfig, "values")
    letterbox: int | None = same_as(ScoreConfig, "letterbox")
    resize: str = same_as(ScoreConfig, "resize")
    polygons: str | None = same_as(ScoreConfig, "polygons")
    batch_size: int = same_as(ScoreConfig, "batch_size")
    consensus: str = key("majority", "how candidates become one mask: majority, weighted or medoid")
    islands: float = key(0.01, "pieces below this share of the largest piece are removed")
    holes: float = key(0.01, "holes below this share of the largest piece are filled")
    min_candidates: int = key(2, "instances with fewer usable candidates are removed")
    confidence: float = key(0.7, "instances whose candidates agree less are removed")
    original_iou: float = key(
        0.5, "instances whose refined mask has a lower IoU with the original are removed"
    )
    pair_weight: float = key(1.0, "weight of the candidates' mean IoU in the confidence")
    boundary_weight: float = key(1.0, "weight of their mean boundary IoU in it")
    box_weight: float = key(1.0, "weight of the IoU with the original box in it")
    words: str | None = key(
        None, "file of words, one a line, that remove the expressions that hold them", path=True
    )
    classifier: str | None = key(
        None, "text classifier of Transformers that finds harmful expressions: Hub name or folder"
    )
    classifier_revision: str | None = key(None, "branch, tag or commit of the classifier")
    classifier_labels: Any = key(None, "its labels that are harmful, [A,B]", listed=True)
    harm: float = key(0.5, "score from which a harmful label removes an expression")
    pictures: str = key("embed", "pictures in the written dataset: embed, path or none")
    shard_mb: int = key(500, "size at which a Parquet shard ends, megabytes")
    truth: str | None = key(
        None, "dataset with exact masks of the same samples: judges what was made", path=True
    )
    output_dir: str | None = key(
        None, "folder for the dataset; what is known of an image is not asked again", path=True
    )
    json: bool = key(False, "print construct.json instead of the table")
    quiet: bool = same_as(ScoreConfig, "quiet")


@dataclass
class CacheConfig:
    """Show, build or clear what is cached on disk."""

    action: str = key("list", "list, path, build (the store of `dataset`) or clear")
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    threads: int = key(0, "CPU threads; 0 for all cores")
    quiet: bool = key(False, "print nothing but warnings and errors")


VERBS: dict[str, tuple[type, str]] = {
    "score": (ScoreConfig, "predictions"),
    "compare": (CompareConfig, "pair"),
    "sweep": (SweepConfig, "predictions"),
    "construct": (ConstructConfig, "predictions"),
    "cache": (CacheConfig, "action"),
}
"""Verb to its config and the key that positional arguments fill."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key as `--help` shows it; text is taken as it stands, anything else is parsed by Hydra."""

    name: str
    default: Any
    meaning: str
    is_path: bool
    is_text: bool
    is_listed: bool = False
    is_nested: bool = False

    @property
    def shown(self) -> str:
        """The key with its default, as it would be typed."""
        default = "null" if self.default is None else str(self.default)
        return f"{self.name}={default.lower() if isinstance(self.default, bool) else default}"


def keys_of(config: type, prefix: str = "") -> Iterator[Key]:
    """All keys of a config, nested ones with their dots."""
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
            )


def conf_dir() -> Path:
    """The folder `conf`: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def groups(config: type) -> dict[str, list[str]]:
    """Config groups of a verb and their options: folders of `conf` and the files in each."""
    prefixes = {name for name, _, rest in (k.name.partition(".") for k in keys_of(config)) if rest}
    return {
        name: sorted(path.stem for path in (conf_dir() / name).glob("*.yaml"))
        for name in sorted(prefixes)
    }
