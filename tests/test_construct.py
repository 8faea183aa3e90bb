"""Construction: what candidates agree on, what stays and why, and a dataset that is read, scored and made again."""

import json
import math
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import REAL, encode_png
from masks import edge, iou
from sweeps import quiet_ray

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.construct.audit import CANDIDATES, EXPRESSIONS, INSTANCES
from refcocom_gpu.construct.beside import work_folder
from refcocom_gpu.construct.filter import Harm, HarmFilter, Words
from refcocom_gpu.construct.instances import Candidate, Refused
from refcocom_gpu.construct.judge import judge, rank_correlation
from refcocom_gpu.construct.measurements import ImageResult, Measured, Proposed
from refcocom_gpu.construct.parts import Parts
from refcocom_gpu.construct.propose.files import FileProposer
from refcocom_gpu.construct.propose.grabcut import GrabCutProposer
from refcocom_gpu.construct.rules import Rules
from refcocom_gpu.construct.run import construct
from refcocom_gpu.construct.write import Output
from refcocom_gpu.dataset.images import Images
from refcocom_gpu.dataset.sample import draw_image, make_predictions, make_records
from refcocom_gpu.engines import Engine
from refcocom_gpu.errors import DataError, UsageError
from refcocom_gpu.masks import rle

# The whole ----------------------------------------------------------------------------------------


def with_masks(records: list[dict], change: Any) -> list[dict]:
    return [
        {
            **r,
            "samples": [
                {**s, "mask": rle.encode(change(rle.decode(s["mask"]))), "bbox": None}
                for s in r["samples"]
            ],
        }
        for r in records
    ]


def widened(mask: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> rc.Dataset:
    """The built-in sample with masks too wide, as a set of its own."""
    path = tmp_path_factory.mktemp("original") / "wide.jsonl"
    records = with_masks(make_records(n_images=8), widened)
    path.write_text("\n".join(map(json.dumps, records)))
    return rc.load_dataset(path, cache=False)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for record in make_records(n_images=8):
        (folder / record["file_name"]).write_bytes(encode_png(draw_image(record)))
    return folder


def proposers(original: rc.Dataset, folder: Path) -> list[Any]:
    records = make_records(n_images=8)
    made = []
    for k, (kind, seed) in enumerate([("good", 0), ("good", 1), ("coarse", 2)]):
        path = folder / f"{kind}-{k}.jsonl"
        path.write_text("\n".join(map(json.dumps, make_predictions(records, kind, seed))))
        made.append(FileProposer(path.stem, path, original))
    return made


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything that the folder holds, by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def copy_of(folder: Path, other: Path) -> None:
    """Copy a set and what is kept beside it."""
    for one, two in ((folder, other), (work_folder(folder), work_folder(other))):
        shutil.copytree(one, two)


RULES, ONE = Rules(confidence=0.6), Rules(min_candidates=1)


@pytest.fixture(scope="module")
def made(
    original: rc.Dataset, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("made")
    construction = construct(
        original,
        Output(folder / "out"),
        [*proposers(original, folder), GrabCutProposer()],
        rules=RULES,
        expression_filter=HarmFilter(Words(("Red",))),
        images=Images(original, pictures),
    )
    return folder / "out", construction


def test_the_dataset_is_read_by_everyone(made: tuple[Path, Any], original: rc.Dataset) -> None:
    import datasets

    folder, construction = made
    ours = rc.load_dataset(folder)
    assert ours.fingerprint == construction.summary["fingerprint"]
    counts = construction.summary["counts"]
    assert (ours.n_samples, ours.n_examples) == (
        counts["instances"]["kept"],
        counts["expressions"]["kept"],
    )
    assert 0 < ours.n_samples < original.n_samples
    theirs = datasets.load_dataset(str(folder), split="validation")
    assert theirs.features["image"] == datasets.Image()
    assert theirs["image_id"] == ours.image_ids.tolist()
    record = theirs[0]
    assert np.asarray(record["image"]).tolist() == draw_image(record["image_id"]).tolist()
    sample = record["samples"][0]
    mask = rle.decode(sample["mask"])
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y, w, h = sample["bbox"]
    assert (y, y + h - 1, x, x + w - 1) == (rows[0], rows[-1], columns[0], columns[-1])
    assert sample["label"]
    assert sample["image_id"] == record["image_id"]
    sentences = [text for r in theirs for s in r["samples"] for text in s["sentences"]]
    assert not any("red" in text.lower().split() for text in sentences)
    # Our own reader finds the pictures too.
    assert Images(ours)[0].size == record["image"].size


def test_it_is_scored(made: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = made
    dataset = rc.load_dataset(folder)
    rows = [
        {"sample_id": s, "sentence_idx": k, "segmentation": {"size": [h, w], "counts": c}}
        for s, k, h, w, c in (
            (*dataset.key_of(i), int(dataset.heights[m]), int(dataset.widths[m]), dataset.counts.row(m).decode())
            for i, m in enumerate(dataset.example_sample.tolist())
        )
    ]  # fmt: skip
    path = tmp_path / "perfect.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "out"
    assert main(["score", str(path), f"dataset.path={folder}", f"output_dir={out}", "quiet=true"]) == 0  # fmt: skip
    assert rc.load_results(out).miou == 1.0


def test_the_audit_gives_a_cause_for_every_removal(
    made: tuple[Path, Any], original: rc.Dataset
) -> None:
    folder, construction = made
    tables = {
        name: pq.read_table(folder / "audit" / f"{name}.parquet")
        for name in ("instances", "expressions", "candidates")
    }
    for name, columns in (
        ("instances", INSTANCES),
        ("expressions", EXPRESSIONS),
        ("candidates", CANDIDATES),
    ):
        assert tables[name].schema.names == list(columns)
        # As text, in which a NaN is like another.
        assert str(tables[name].to_pylist()) == str(getattr(construction.audit, name).to_pylist())
    instances = tables["instances"].to_pylist()
    assert [row["sample_id"] for row in instances] == original.sample_ids.tolist()
    expressions = tables["expressions"].to_pylist()
    assert len(expressions) == original.n_examples
    for row in [*instances, *expressions]:
        assert row["kept"] == (not row["cause"])
        assert bool(row["reason"]) == bool(row["cause"])
    assert {row["cause"] for row in instances} >= {"", "confidence"}
    assert {row["cause"] for row in expressions} >= {"", "instance", "word"}
    # What stays is what the dataset has, in the same order, at the place the audit says.
    dataset = rc.load_dataset(folder)
    kept = [(row["sample_id"], row["new_sentence_idx"]) for row in expressions if row["kept"]]
    assert kept == [dataset.key_of(i) for i in range(dataset.n_examples)]
    sentences = [row["sentence"] for row in expressions if row["kept"]]
    assert sentences == dataset.examples["sentence"].to_pylist()
    masks = [row["counts"].encode() for row in instances if row["kept"]]
    assert masks == [dataset.counts.row(k) for k in range(dataset.n_samples)]
    removed = construction.summary["counts"]["instances"]["removed"]
    assert sum(removed.values()) == sum(not row["kept"] for row in instances)
    card = (folder / "README.md").read_text()
    assert f"| instances | {original.n_samples:,} | {dataset.n_samples:,} |" in card
    assert dataset.fingerprint in card
    assert "grabcut" in card
    assert "hash" in card
    # The list of words is the user's, and is not published with the set.
    assert "'red'" not in card.lower()
    assert (folder / "audit" / "contact_sheet.png").read_bytes()[1:4] == b"PNG"


@quiet_ray
def test_the_same_bytes_from_any_engine(
    made: tuple[Path, Any], original: rc.Dataset, pictures: Path, tmp_path: Path, engine: Engine
) -> None:
    folder, _ = made
    again = construct(
        original,
        Output(tmp_path / "again"),
        [*proposers(original, tmp_path), GrabCutProposer()],
        rules=RULES,
        expression_filter=HarmFilter(Words(("Red",))),
        images=Images(original, pictures),
        engine=engine,
    )
    assert again.n_done == original.n_images
    assert files_of(tmp_path / "again") == files_of(folder)


def test_what_is_known_is_not_asked_again(
    made: tuple[Path, Any], original: rc.Dataset, pictures: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    copy_of(made[0], folder)
    files = [*proposers(original, tmp_path), GrabCutProposer()]
    options: dict[str, Any] = {"expression_filter": HarmFilter(Words(("Red",)))}
    options["images"] = Images(original, pictures)
    # Another threshold asks nobody, and back again gives the same bytes.
    stricter = construct(original, Output(folder), files, rules=Rules(confidence=0.9), **options)
    assert stricter.n_done == 0
    assert stricter.summary["counts"] != made[1].summary["counts"]
    back = construct(original, Output(folder), files, rules=RULES, **options)
    assert back.n_done == 0
    assert files_of(folder) == files_of(made[0])
    # A damaged part counts as absent; a changed picture is measured again.
    part = sorted((work_folder(folder) / "parts").iterdir())[0]
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    assert construct(original, Output(folder), files, rules=RULES, **options).n_done == 1
    assert (
        construct(original, Output(folder), files, rules=Rules(islands=0.02), **options).n_done == 8
    )
    moved = tmp_path / "pictures"
    shutil.copytree(pictures, moved)
    name = make_records(n_images=1)[0]["file_name"]
    (moved / name).write_bytes(encode_png(255 - draw_image(1001)))
    options["images"] = Images(original, moved)
    assert construct(original, Output(folder), files, rules=RULES, **options).n_done == 1


def test_a_part_is_whole_or_absent(tmp_path: Path) -> None:
    result = ImageResult(3, "", (Measured(7, (Proposed("a", score=0.5),), b"12", 4),), (Harm(),))
    parts = Parts(tmp_path, {"code": 1})
    assert parts.get(3, "looks") is None
    parts.put(result, "looks")
    # As text, in which a NaN is like another.
    assert str(parts.get(3, "looks")) == str(result)
    assert Parts(tmp_path, {"code": 2}).get(3, "looks") is None
    assert parts.get(3, "other") is None
    assert parts.get(4, "looks") is None
    (path,) = (tmp_path / "parts").iterdir()
    content = path.read_bytes()
    parts.put(ImageResult(4, "", (), ()), "looks")
    (other,) = set((tmp_path / "parts").iterdir()) - {path}
    for wrong in (b"", content[:-1], content[:20], content + b"0", other.read_bytes()):
        path.write_bytes(wrong)
        assert parts.get(3, "looks") is None
    path.write_bytes(content)
    assert str(parts.get(3, "looks")) == str(result)


KILLED = """
import sys, time
import refcocom_gpu as rc
from refcocom_gpu.construct.instances import Candidate
from refcocom_gpu.construct.rules import Rules
from refcocom_gpu.construct.run import construct
from refcocom_gpu.construct.write import Output
import numpy as np
class Slow:
    name, needs_picture = "slow", False
    def __init__(self, k): self.name, self.k = f"slow {k}", k
    def identity(self): return {"k": self.k}
    def propose(self, picture, instances):
        time.sleep(float(sys.argv[2]))
        return [[Candidate.from_mask(self.name, np.roll(i.mask, self.k, 1), 0.5)] for i in instances]
dataset = rc.load_dataset("sample")
made = construct(dataset, Output(sys.argv[1], pictures="none"), [Slow(0), Slow(1)], rules=Rules(confidence=0.5))
print(made.n_done)
"""


def test_killed_and_started_again(tmp_path: Path) -> None:
    def start(folder: Path, seconds: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", KILLED, str(folder), seconds]
        return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)

    whole = start(tmp_path / "whole", "0")
    for wait in (3, 9):
        process = start(tmp_path / "killed", "0.05")
        parts = tmp_path / "killed.work" / "parts"
        until = time.monotonic() + 60
        while time.monotonic() < until and len(list(parts.glob("*.msgpack"))) < wait:
            time.sleep(0.01)
        process.kill()
        process.communicate()
        assert not (tmp_path / "killed" / "construct.json").exists()
    last = start(tmp_path / "killed", "0")
    assert 0 < int(last.communicate()[0]) <= 36 - 9
    assert int(whole.communicate()[0]) == 36
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


def test_the_rules_import_nothing_heavy() -> None:
    """`--help` shows them."""
    code = (
        "import sys, refcocom_gpu.construct.rules; "
        "print(*{'numpy', 'pyarrow', 'msgspec', 'torch', 'numba'} & set(sys.modules))"
    )
    completed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert completed.stdout.strip() == ""


# What goes wrong ----------------------------------------------------------------------------------


class Odd:
    """A proposer that answers whatever it is told to."""

    needs_picture = False

    def __init__(self, answer: Any, name: str = "odd") -> None:
        self.answer, self.name = answer, name

    def identity(self) -> dict[str, Any]:
        return {"kind": "odd"}

    def propose(self, picture: Any, instances: Any) -> Any:
        return self.answer(instances)


def exact(instances: Any) -> Any:
    return [[Candidate.from_mask("exact", one.mask, 0.5)] for one in instances]


WRONG = {
    "too few lists": (lambda instances: [], "0 lists of proposals for"),
    "another size": (
        lambda instances: [[Candidate.from_mask("odd", one.mask[1:], 0.5)] for one in instances],
        r"a candidate must be \d+×\d+ pixels, not \d+×\d+",
    ),
    "floats": (
        lambda instances: [
            [Candidate.from_mask("odd", one.mask * math.nan, 0.5)] for one in instances
        ],
        "not float64",
    ),
    "height for width": (
        lambda instances: [[Candidate.from_mask("odd", one.mask.T, 0.5)] for one in instances],
        r"a candidate must be (\d+)×(\d+) pixels, not \2×\1",
    ),
    "runs of another size": (
        lambda instances: [
            [Candidate("odd", np.array([1, 2], np.int32), one.mask.shape)] for one in instances
        ],
        r"the last run must end at \d+ pixels",
    ),
    "runs of another type": (
        lambda instances: [
            [Candidate("odd", [0, one.mask.size], one.mask.shape)] for one in instances
        ],
        "int32, not int64",
    ),
    "runs that fall": (
        lambda instances: [
            [Candidate("odd", np.array([2, 1, one.mask.size], np.int32), one.mask.shape)]
            for one in instances
        ],
        "never fall",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_proposer_that_breaks_its_word(original: rc.Dataset, tmp_path: Path, what: str) -> None:
    answer, message = WRONG[what]
    with pytest.raises(DataError, match=message):
        construct(original, Output(tmp_path / "out", pictures="none"), [Odd(answer)])
    assert not files_of(tmp_path / "out")


def test_refused_and_empty_proposals_are_audited(original: rc.Dataset, tmp_path: Path) -> None:
    def refuse(instances: Any) -> Any:
        return [[Refused("nan", "non-finite logits")] for _ in instances]

    def empty(instances: Any) -> Any:
        return [[Candidate.from_mask("empty", np.zeros_like(one.mask), 0.1)] for one in instances]

    made = construct(
        original,
        Output(tmp_path / "out", pictures="none"),
        [Odd(refuse, "nan"), Odd(empty, "empty"), Odd(exact, "exact")],
    )
    instances = made.audit.instances.to_pylist()
    assert {row["cause"] for row in instances} == {"candidates"}
    assert instances[0]["reason"] == (
        "1 usable candidates, 2 are needed (nan: non-finite logits; empty: empty mask)"
    )
    reasons = {(r["proposer"], r["reason"]) for r in made.audit.candidates.to_pylist()}
    assert reasons == {("nan", "non-finite logits"), ("empty", "empty mask"), ("exact", "")}
    # Nothing is left: the dataset is empty, says so, and is refused by whoever would score it.
    assert made.summary["fingerprint"] is None
    with pytest.raises(DataError, match="no records"):
        rc.load_dataset(tmp_path / "out")


def test_runs_of_length_zero_change_no_byte(original: rc.Dataset, tmp_path: Path) -> None:
    """They are legal in a file of predictions; equal masks are written as equal strings."""

    def padded(instances: Any) -> Any:
        plain = [Candidate.from_mask("exact", one.mask, 0.5) for one in instances]
        return [[c._replace(ends=np.repeat(c.ends, 3))] for c in plain]

    for name, answer in (("plain", exact), ("padded", padded)):
        construct(original, Output(tmp_path / name, pictures="none"), [Odd(answer, "a")], rules=ONE)
    assert files_of(tmp_path / "padded") == files_of(tmp_path / "plain")
    candidates = pq.read_table(tmp_path / "padded" / "audit" / "candidates.parquet")
    originals = [original.counts.row(k).decode() for k in range(original.n_samples)]
    assert candidates["counts"].to_pylist() == originals


class Looking(Odd):
    """A proposer that needs the picture, and says so if it gets none."""

    needs_picture = True

    def propose(self, picture: Any, instances: Any) -> Any:
        assert picture.shape[:2] == instances[0].mask.shape
        return self.answer(instances)


TWO = [Odd(exact, "a"), Odd(exact, "b")]
LOOKING = [Looking(exact, "a"), Odd(exact, "b")]


@pytest.fixture
def damaged(original: rc.Dataset, pictures: Path, tmp_path: Path) -> Images:
    """The pictures without the third one, with another's in place of the fifth, and with half of the seventh."""
    folder = tmp_path / "pictures"
    shutil.copytree(pictures, folder)
    third, fifth, seventh = (folder / original.images["file_name"][k].as_py() for k in (2, 4, 6))
    third.unlink()
    fifth.write_bytes(encode_png(np.zeros((3, 2, 3), np.uint8)))
    seventh.write_bytes(seventh.read_bytes()[: seventh.stat().st_size // 2])
    return Images(original, folder)


def causes_by_image(made: Any) -> dict[int, set[str]]:
    by_image: dict[int, set[str]] = {}
    for row in made.audit.instances.to_pylist():
        by_image.setdefault(row["image_id"], set()).add(row["cause"])
    return by_image


def test_pictures_that_nobody_needs_are_not_asked_for(original: rc.Dataset, tmp_path: Path) -> None:
    """Three prediction files propose, the records hold no picture, and none is removed for that."""
    made = construct(original, Output(tmp_path / "out"), proposers(original, tmp_path), rules=RULES)
    removed = made.summary["counts"]["instances"]["removed"]
    assert removed["picture"] == 0
    assert made.summary["counts"]["instances"]["kept"] > 0
    n_kept = made.summary["images"]["kept"]
    assert made.summary["pictures"] == {"held_as": "none", "held": 0, "absent": n_kept}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Pictures are absent: no record holds one" in card
    assert "| missing_pictures | error |" in card
    assert rc.load_dataset(tmp_path / "out").n_images == n_kept


def test_the_card_counts_references_that_were_dropped(original: rc.Dataset, tmp_path: Path) -> None:
    output = Output(tmp_path / "out", pictures="none")
    made = construct(replace(original, n_dropped=3), output, TWO)
    assert made.summary["original"]["n_dropped"] == 3
    sentence = "3 references of the original that have no sentence or no pixel were left out"
    assert sentence in (tmp_path / "out" / "README.md").read_text()


def test_absent_pictures_that_nobody_needs_are_left_out(
    original: rc.Dataset, damaged: Images, tmp_path: Path
) -> None:
    import datasets

    made = construct(original, Output(tmp_path / "out"), TWO, images=damaged)
    assert made.summary["counts"]["instances"]["removed"]["picture"] == 0
    assert made.summary["pictures"] == {"held_as": "embed", "held": 6, "absent": 2}
    assert "absent from 2 of the 8 image records" in (tmp_path / "out" / "README.md").read_text()
    written = datasets.load_dataset(str(tmp_path / "out"), split="validation").cast_column(
        "image", datasets.Image(decode=False)
    )
    absent = [k for k, record in enumerate(written) if record["image"] is None]
    assert absent == [2, 4]
    # Neither their presence nor their absence changes what is decided.
    (damaged.folder / "none").mkdir()
    none = Images(original, damaged.folder / "none")
    without = construct(original, Output(tmp_path / "without"), TWO, images=none)
    assert without.summary["fingerprint"] == made.summary["fingerprint"]
    assert without.summary["pictures"]["absent"] == 8


@pytest.mark.parametrize(
    ("made_by", "held", "who"),
    [
        (LOOKING, "none", "proposer a"),
        (TWO, "embed", "pictures=embed"),
        (LOOKING, "path", "proposer a, pictures=path"),
    ],
)
def test_a_needed_picture_that_is_missing_is_an_error(
    original: rc.Dataset, damaged: Images, tmp_path: Path, made_by: Any, held: str, who: str
) -> None:
    output = Output(tmp_path / "out", held)
    with pytest.raises(DataError) as caught:
        construct(original, output, made_by, images=damaged)
    text = str(caught.value)
    assert f"2 of 8 pictures cannot be used, and they are needed by {who}; pass" in text
    assert "missing_pictures=remove" in text
    assert "there is no file" in text
    assert "the picture is 3 × 2" in text
    assert not (tmp_path / "out").exists()
    # A file that is cut shows only when it is decoded: after the work, but before anything is made.
    names = original.images["file_name"].to_pylist()
    for k in (2, 4):
        content = encode_png(draw_image(int(original.image_ids[k])))
        (damaged.folder / names[k]).write_bytes(content)
    with pytest.raises(DataError, match=r"1 of 8 pictures cannot be used(.|\n)*truncated"):
        construct(original, output, made_by, images=damaged)
    assert not files_of(tmp_path / "out")


@pytest.mark.parametrize(("made_by", "held"), [(LOOKING, "auto"), (TWO, "embed")])
def test_instances_of_missing_pictures_are_removed_on_request(
    original: rc.Dataset, damaged: Images, tmp_path: Path, made_by: Any, held: str
) -> None:
    made = construct(
        original,
        Output(tmp_path / "out", held),
        made_by,
        rules=Rules(missing_pictures="remove"),
        images=damaged,
    )
    by_image = causes_by_image(made)
    ids = original.image_ids.tolist()
    removed = {k for k, causes in by_image.items() if causes == {"picture"}}
    assert removed == {ids[2], ids[4], ids[6]}
    for row in made.audit.instances.to_pylist():
        if row["cause"] == "picture":
            assert "picture" in row["reason"] or "there is no file" in row["reason"]
    assert rc.load_dataset(tmp_path / "out").n_images == 5
    assert made.summary["rules"]["missing_pictures"] == "remove"
    assert made.summary["pictures"] == {"held_as": "embed", "held": 5, "absent": 0}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| missing_pictures | remove |" in card
    assert "Every image record holds its picture." in card


@pytest.mark.parametrize(("made_by", "held"), [(LOOKING, "none"), (TWO, "embed")])
@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("missing", ["error", "remove"])
def test_a_construction_without_any_picture_it_needs_fails(
    original: rc.Dataset, held: str, made_by: Any, tmp_path: Path, cut: bool, missing: str
) -> None:
    (tmp_path / "empty").mkdir()
    if cut:
        for record in make_records(n_images=8):
            content = encode_png(draw_image(record))[:-60]
            (tmp_path / "empty" / record["file_name"]).write_bytes(content)
    way_out = ", or pictures=none to write the set without them" if held == "embed" else ""
    with pytest.raises(DataError, match=rf"8 of 8 pictures cannot be used.*images=DIR{way_out}\n"):
        construct(
            original,
            Output(tmp_path / "out", held),
            made_by,
            rules=Rules(missing_pictures=missing),
            images=Images(original, tmp_path / "empty"),
        )
    assert not files_of(tmp_path / "out")


def test_pictures_by_path_and_none(original: rc.Dataset, pictures: Path, tmp_path: Path) -> None:
    import datasets

    two = [Odd(exact, "a"), Odd(exact, "b")]
    images = Images(original, pictures)
    construct(original, Output(tmp_path / "path", pictures="path"), two, images=images)
    record = datasets.load_dataset(str(tmp_path / "path"), split="validation")[0]
    assert np.asarray(record["image"]).tolist() == draw_image(record["image_id"]).tolist()
    # `datasets` does not take another set in a folder of the same name for the one it has loaded.
    other = construct(
        original,
        Output(tmp_path / "other" / "path", pictures="none"),
        two,
        rules=Rules(original_iou=0.9),
    )
    again = datasets.load_dataset(str(tmp_path / "other" / "path"), split="validation")
    assert sum(len(r["samples"]) for r in again) == other.summary["counts"]["instances"]["kept"]
    construct(original, Output(tmp_path / "none", pictures="none"), two)
    assert rc.load_dataset(tmp_path / "none").n_images == 8
    sample = rc.load_dataset("sample")
    with pytest.raises(UsageError, match="pictures=path needs pictures that are files"):
        construct(sample, Output(tmp_path / "x", pictures="path"), two, images=Images(sample))
    with pytest.raises(UsageError, match="pictures=embed needs the pictures"):
        construct(sample, Output(tmp_path / "x", pictures="embed"), two)


def test_shards_end_by_size(original: rc.Dataset, pictures: Path, tmp_path: Path) -> None:
    import datasets

    two = [Odd(exact, "a"), Odd(exact, "b")]
    images = Images(original, pictures)
    construct(original, Output(tmp_path / "one"), two, images=images)
    construct(original, Output(tmp_path / "many", shard_bytes=9_000), two, images=images)
    names = [path.name for path in sorted((tmp_path / "many" / "data").iterdir())]
    n = len(names)
    assert n > 2
    assert names == [f"validation-{k:05}-of-{n:05}.parquet" for k in range(n)]
    one, many = (rc.load_dataset(tmp_path / name) for name in ("one", "many"))
    assert one.fingerprint == many.fingerprint
    assert len(datasets.load_dataset(str(tmp_path / "many"), split="validation")) == 8


def test_usage(original: rc.Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nobody proposes"):
        construct(original, Output(tmp_path, pictures="none"), [])
    with pytest.raises(UsageError, match="two proposers are named 'odd'"):
        construct(original, Output(tmp_path, pictures="none"), [Odd(exact), Odd(exact)])
    with pytest.raises(UsageError, match="grabcut needs the pictures"):
        construct(original, Output(tmp_path, pictures="none"), [GrabCutProposer()])
    for wrong in (
        {"confidence": 1.5},
        {"consensus": "mean"},
        {"min_candidates": 0},
        {"pair_weight": -1.0},
        {"harm": math.nan},
        {"missing_pictures": "ignore"},
    ):
        with pytest.raises(UsageError):
            Rules(**wrong)


def test_a_folder_of_something_else(original: rc.Dataset, tmp_path: Path) -> None:
    two = [Odd(exact, "a"), Odd(exact, "b")]
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "data").mkdir()
    with pytest.raises(UsageError, match=r"holds data, README\.md that no construction wrote"):
        construct(original, Output(tmp_path, pictures="none"), two)
    assert (tmp_path / "README.md").read_text() == "mine"
    out = tmp_path / "out"
    construct(original, Output(out, pictures="none"), two)
    (out / "judge").mkdir()
    again = rc.load_dataset(out)
    with pytest.raises(UsageError, match="holds the original set"):
        construct(again, Output(out, pictures="none"), two)
    # Another set takes its place, and what was said of the first goes with it.
    construct(original, Output(out, pictures="none"), two, rules=Rules(original_iou=0.9))
    assert not (out / "judge").exists()


def test_the_folder_is_ready_to_upload(made: tuple[Path, Any]) -> None:
    names = {path.relative_to(made[0]).parts[0] for path in made[0].rglob("*") if path.is_file()}
    assert names == {"data", "audit", "README.md", "construct.json"}
    assert {path.name for path in work_folder(made[0]).iterdir()} == {"parts", ".lock"}


def test_the_earlier_layout_goes_on(original: rc.Dataset, tmp_path: Path) -> None:
    """What it kept inside is moved out, and no image is measured again."""
    out, two = tmp_path / "out", [Odd(exact, "a"), Odd(exact, "b")]
    first = construct(original, Output(out, pictures="none"), two)
    files, beside = files_of(out), work_folder(out)
    (beside / "parts").rename(out / ".parts")
    (out / ".new" / "data").mkdir(parents=True)
    (out / ".lock").touch()
    shutil.rmtree(beside)
    again = construct(original, Output(out, pictures="none"), two)
    assert (first.n_done, again.n_done) == (original.n_images, 0)
    assert files_of(out) == files
    assert not (out / ".new").exists()
    shutil.rmtree(beside)
    with pytest.raises(UsageError, match=r"or whose out\.work was deleted"):
        construct(original, Output(out, pictures="none"), two)


def test_where_no_work_can_be_kept(
    original: rc.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = [Odd(exact, "a"), Odd(exact, "b")]
    with pytest.raises(UsageError, match="not a whole disk"):
        construct(original, Output("/", pictures="none"), two)
    (tmp_path / "out.work").write_text("mine")
    with pytest.raises(UsageError, match=r"out\.work is a file"):
        construct(original, Output(tmp_path / "out", pictures="none"), two)
    assert not (tmp_path / "out").exists()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    construct(original, Output(".", pictures="none"), two)
    assert (tmp_path / "here.work" / "parts").is_dir()


# Judge --------------------------------------------------------------------------------------------


def test_a_judgement_is_what_its_words_say(made: tuple[Path, Any], original: rc.Dataset) -> None:
    from scipy.stats import spearmanr

    truth = rc.load_dataset("sample")
    judgement = judge(made[1].audit, truth)
    store = rc.MaskStore.build(truth, cache=False)
    masks = {
        int(s): store.mask(int(truth.first_example[k])) for k, s in enumerate(truth.sample_ids)
    }
    rows = [row for row in made[1].audit.instances.to_pylist() if row["counts"]]

    def decoded(row: dict[str, Any], column: str) -> np.ndarray:
        return rle.decode({"size": [row["height"], row["width"]], "counts": row[column]})

    for measure, view in (("iou", lambda m: m), ("boundary_iou", edge)):
        for name, column in (("refined", "counts"), ("original", "original_counts")):
            expected = [iou(view(decoded(r, column)), view(masks[r["sample_id"]])) for r in rows]
            np.testing.assert_allclose(judgement.quality(name, measure), expected)
    kept = judgement.confidence >= 0.6
    at = judgement.at(0.6)
    assert at["refined"] == pytest.approx(judgement.quality("refined")[kept].mean())
    assert at["best"] == pytest.approx(judgement.quality(judgement.best)[kept].mean())
    assert at["share"] == pytest.approx(kept.sum() / original.n_samples)
    assert at["refined"] > at["original"]
    confidence, quality = judgement.confidence, judgement.quality("refined")
    assert judgement.correlation()["all"] == pytest.approx(spearmanr(confidence, quality).statistic)
    tied = np.array([1.0, 2, 2, 3, 3, 3])
    other = np.array([2.0, 1, 4, 4, 9, 3])
    assert rank_correlation(tied, other) == pytest.approx(spearmanr(tied, other).statistic)
    with pytest.raises(DataError, match="no true mask for"):
        judge(made[1].audit, small_truth())


def small_truth() -> rc.Dataset:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "few.jsonl"
        path.write_text("\n".join(map(json.dumps, make_records(n_images=2))))
        return rc.load_dataset(path, cache=False)


def test_refined_masks_beat_what_they_were_made_of() -> None:
    """On seeds that no threshold was set on; the full study is `python -m benchmarks.construction`."""
    from benchmarks.construction.study import CORRELATED, INDEPENDENT, Scene, construct_scene

    rules = Rules()
    scene = Scene.drawn(7, 60)
    independent = construct_scene(scene, INDEPENDENT)
    for measure in ("iou", "boundary_iou"):
        at = independent.at(rules.confidence, measure)
        assert at["share"] >= 0.5
        assert at["over_original"] > 1.96 * at["over_original_se"]
        assert at["over_best"] > 1.96 * at["over_best_se"]
        assert at["refined"] > max(at["at_random"], at["by_area"])
        assert independent.correlation(measure)["all"] >= 0.6
    # Where most models err alike, their agreement is no evidence, and the result is worse than what it began with.
    correlated = construct_scene(scene, CORRELATED)
    at = correlated.at(rules.confidence)
    assert at["over_original"] < 0
    assert at["over_best"] < 0


# Command ------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["construct", "[sample,sample-coarse]", "grabcut=true", "dataset=sample"]
    out = tmp_path / "out"
    assert main([*words, f"output_dir={out}", "truth=sample"]) == 0
    printed = capsys.readouterr().out
    assert "IoU with the truth" in printed
    assert f"Wrote {out}" in printed
    assert {path.name for path in (out / "judge").iterdir()} == {
        "judge.json", "judge.png", "instances.parquet", "curve_iou.parquet", "curve_boundary_iou.parquet",
    }  # fmt: skip
    assert main([*words, f"output_dir={out}", "json=true", "confidence=0.8"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((out / "construct.json").read_text())
    assert summary["rules"]["confidence"] == 0.8


def test_the_command_without_pictures(
    original: rc.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / f"{p.name}.jsonl" for p in proposers(original, tmp_path)]
    out = tmp_path / "out"
    words = [
        f"[{','.join(map(str, files))}]",
        f"dataset.path={original.source}",
        f"output_dir={out}",
    ]
    assert main(["construct", *words]) == 0
    printed = capsys.readouterr()
    assert "no picture is embedded" in printed.err
    assert "Pictures are absent from" in printed.out
    summary = json.loads((out / "construct.json").read_text())
    assert summary["counts"]["instances"]["removed"]["picture"] == 0
    (tmp_path / "empty").mkdir()
    asked = [*words[:2], f"output_dir={tmp_path / 'x'}", f"images={tmp_path / 'empty'}"]
    assert main(["construct", *asked, "grabcut=true"]) == 3
    assert "8 of 8 pictures cannot be used" in capsys.readouterr().err
    assert main(["construct", *asked, "grabcut=true", "missing_pictures=remove"]) == 3
    assert main(["construct", *words[:2], f"output_dir={tmp_path / 'x'}", "pictures=embed"]) == 2
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["sample", "missing_pictures=ignore"], 2, "missing_pictures must be"),
        ([], 2, "nobody proposes"),
        (["sample", "confidence=2"], 2, "a share from 0 to 1"),
        (["sample", "pictures=all"], 2, "pictures must be"),
        (["sample", "words=nowhere.txt"], 2, "cannot be read"),
        (["sample", "truth=nowhere"], 2, "no file or folder nowhere"),
        (["http://host/p.jsonl"], 2, "download"),
        (["bad.jsonl"], 3, "malformed"),
    ],
)
def test_mistakes_of_the_command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    Path("bad.jsonl").write_text("{")
    common = ["dataset=sample", "output_dir=out", "min_candidates=1"]
    assert main(["construct", *words, *common]) == code
    assert message in capsys.readouterr().err
    assert not Path("out/construct.json").exists()


def test_real_masks(tmp_path: Path) -> None:
    """Masks of COCO, coarsened: refined ones are closer to what they were."""
    path = REAL / "val2014" / "refcoco_m_like.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not there; it is not shipped")
    from benchmarks.construction.study import INDEPENDENT, construct_scene, scene_of_file

    scene = scene_of_file(path, 0)
    judgement = construct_scene(replace(scene, records=scene.records[:40]), INDEPENDENT)
    at = judgement.at(Rules().confidence)
    assert at["over_original"] > 1.96 * at["over_original_se"]
