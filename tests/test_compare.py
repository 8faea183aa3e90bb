"""Two results beside each other: every difference from its examples, every sign from the order of the two."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import sample_case

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.cli.tables.comparison import comparison_table
from refcocom_gpu.dataset.sample import make_predictions, make_records
from refcocom_gpu.scores import uncertainty as un
from refcocom_gpu.scores.breakdown import by_group
from refcocom_gpu.scores.conventions import CONVENTIONS, Convention
from refcocom_gpu.scores.slices import MIN_IMAGES
from refcocom_gpu.scores.slices.groupings import LARGE, SMALL

STORE = sample_case().store
GOOD, COARSE = rc.score("sample", STORE), rc.score("sample-coarse", STORE)
N = len(STORE)


@pytest.fixture(scope="module")
def lines():
    return "\n".join(map(json.dumps, make_predictions(make_records(), "good")))


@pytest.fixture
def runs(tmp_path, monkeypatch, lines):
    """A working folder with two result folders `a` and `b`, and the first's predictions as `a.jsonl`."""
    monkeypatch.chdir(tmp_path)
    GOOD.save("a")
    COARSE.save("b")
    Path("a.jsonl").write_text(lines, "utf-8")
    return tmp_path


def cropped(result, share):
    """The same predictions with a share of each intersection, so that nearly all images differ a little."""
    table = result.per_example
    kept = np.floor(table["intersection"].to_numpy() * share).astype(np.int64)
    place = table.schema.get_field_index("intersection")
    return replace(result, per_example=table.set_column(place, "intersection", pa.array(kept)))


def differences(found):
    return [
        found.miou,
        found.ciou,
        *(group for groups in found.breakdowns.values() for group in groups),
    ]


def test_differences_are_those_of_the_results():
    found = rc.compare(GOOD, COARSE)
    assert (found.miou.a, found.miou.b) == (GOOD.miou, COARSE.miou)
    assert found.miou.difference == GOOD.miou - COARSE.miou
    assert found.ciou.difference == GOOD.ciou - COARSE.ciou
    assert found.won + found.lost + found.tied == N
    assert found.won == int((GOOD.iou > COARSE.iou).sum()) > found.lost > 0 < found.tied
    table = found.per_example
    assert table["difference"].to_pylist() == (GOOD.iou - COARSE.iou).tolist()
    assert table["sample_id"].equals(GOOD.per_example["sample_id"])
    image = GOOD.per_example["image_id"].to_numpy()
    ious = np.stack([GOOD.iou, COARSE.iou], axis=1)
    pair = un.pairwise_intervals(un.ratio_by_image(image, ious))
    # The grid of sums rounds by less than 2⁻³⁷.
    assert found.miou.se == pair.se[0, 1]
    assert found.miou.low == pytest.approx(pair.low[0, 1], abs=1e-11)
    assert found.miou.high == pytest.approx(pair.high[0, 1], abs=1e-11)


def test_swapping_changes_signs_and_nothing_else():
    for first, second in ((GOOD, COARSE), (GOOD, cropped(GOOD, 0.99))):
        there, back = rc.compare(first, second), rc.compare(second, first)
        assert (there.won, there.lost, there.tied) == (back.lost, back.won, back.tied)
        for one, other in zip(differences(there), differences(back), strict=True):
            assert (one.label, one.n_examples, one.n_images) == (
                other.label,
                other.n_examples,
                other.n_images,
            )
            assert (one.a, one.b, one.difference, one.se) == (
                other.b,
                other.a,
                -other.difference,
                other.se,
            )
            assert one.low == (None if other.high is None else -other.high)
            assert one.high == (None if other.low is None else -other.low)
        for won, lost in (("won", "lost"), ("lost", "won")):
            indices = [
                [row["index"] for row in rows] for rows in (there.largest[won], back.largest[lost])
            ]
            assert indices[0] == indices[1]


def test_largest_changes():
    found = rc.compare(GOOD, COARSE, top=4)
    change = GOOD.iou - COARSE.iou
    won = [row["difference"] for row in found.largest["won"]]
    assert won == sorted(change.tolist(), reverse=True)[:4]
    assert [row["difference"] for row in found.largest["lost"]] == sorted(
        change[change < 0].tolist()
    )[:4]
    for row in found.largest["won"]:
        assert row["iou_a"] == GOOD.iou[row["index"]]
        key = row["sample_id"], row["sentence_idx"]
        assert key == STORE.dataset.key_of(row["index"])
        assert row["sentence"] == STORE.dataset.examples["sentence"][row["index"]].as_py()
    assert rc.compare(GOOD, COARSE, top=0).largest == {"won": [], "lost": []}


def test_groups_partition_the_examples():
    found = rc.compare(GOOD, COARSE)
    assert list(found.breakdowns) == ["category", "size", "length"]
    for groups in found.breakdowns.values():
        assert sum(group.n_examples for group in groups) == N
        assert sum(g.n_examples * g.difference for g in groups) / N == pytest.approx(
            found.miou.difference
        )
    table = GOOD.per_example
    categories = {group.label: group for group in found.breakdowns["category"]}
    assert {label: group.a for label, group in categories.items()} == GOOD.miou_by_category
    area = table["target_area"].to_numpy()
    small, medium, large = found.breakdowns["size"]
    assert (small.n_examples, large.n_examples) == ((area < SMALL).sum(), (area >= LARGE).sum())
    assert medium.label == "medium (< 9,216 px)"
    words = np.array([len(sentence.split()) for sentence in table["sentence"].to_pylist()])
    short, middle, long = found.breakdowns["length"]
    assert [g.label for g in (short, middle, long)] == ["1-2 words", "3-4 words", "5+ words"]
    expected = [words < 3, (words == 3) | (words == 4), words > 4]
    assert [g.n_examples for g in (short, middle, long)] == [rows.sum() for rows in expected]


def test_few_images_get_no_interval():
    found = rc.compare(GOOD, COARSE)
    large = found.breakdowns["size"][2]
    assert large.n_images < MIN_IMAGES
    assert large.se is large.low is large.high is None
    small = found.breakdowns["size"][0]
    assert small.low < small.difference < small.high
    # Many images, of which few differ: nothing to estimate from either.
    a, image = np.linspace(0, 1, 90), np.repeat(np.arange(30), 3)
    b = a.copy()
    for differing in (MIN_IMAGES - 1, MIN_IMAGES):
        b[: 3 * differing] = 0.9 * a[: 3 * differing] - 0.01
        (group,) = by_group([("all", np.ones(90, bool))], a, b, image, 0.95)
        assert (group.se is None) == (differing < MIN_IMAGES)


def test_intervals_of_a_breakdown_widen_with_its_groups():
    """Student's quantile of SciPy at Šidák's level."""
    stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed")
    rng = np.random.default_rng(0)
    image = np.arange(400)
    a, b = rng.random(400), rng.random(400)
    for k in (1, 4, 10):
        groups = [(str(g), image % k == g) for g in range(k)]
        found = by_group(groups, a, b, image, 0.95)
        for g, group in enumerate(found):
            rows = image % k == g
            assert group.se == pytest.approx(stats.sem(a[rows] - b[rows]))
            t = stats.t.ppf((1 + 0.95 ** (1 / k)) / 2, rows.sum() - 1)
            assert (group.high - group.difference) / group.se == pytest.approx(t, rel=2e-3)


def test_joint_intervals_cover():
    """8 groups of unequal size: some interval misses in about 5 % of simulated samples."""
    rng = np.random.default_rng(1)
    runs, missed = 300, 0
    image = np.repeat(np.arange(400), 3)
    groups = [(str(g), (image % 16 >= 2 * g) & (image % 16 < 2 * g + 2)) for g in range(8)]
    for _ in range(runs):
        hard = rng.normal(1, 1, 400)[image]
        a, b = (1 / (1 + np.exp(-hard - 0.7 * rng.normal(size=1200))) for _ in range(2))
        missed += any(
            not group.low <= 0 <= group.high for group in by_group(groups, a, b, image, 0.95)
        )
    error = np.sqrt(0.05 * 0.95 / runs)
    assert abs(missed / runs - 0.05) < 4 * error


def test_the_same_result_twice():
    found = rc.compare(GOOD, GOOD)
    assert (found.won, found.lost, found.tied) == (0, 0, N)
    assert (found.miou.difference, found.miou.se, found.miou.low, found.miou.high) == (0, 0, 0, 0)
    assert found.largest == {"won": [], "lost": []}
    assert all(group.se is None for groups in found.breakdowns.values() for group in groups)
    assert "A is better on 0 examples, worse on 0, equal on 297." in comparison_table(found)


def test_what_cannot_be_compared(monkeypatch, tmp_path):
    other = replace(
        COARSE, info={**COARSE.info, "dataset": {**COARSE.info["dataset"], "fingerprint": "f" * 32}}
    )
    with pytest.raises(
        rc.ComparisonError, match=f"of different datasets cannot be compared: .* {'f' * 32}"
    ):
        rc.compare(GOOD, other)
    monkeypatch.setitem(CONVENTIONS, "strict", Convention("strict", 0.0, "both empty scores 0"))
    with pytest.raises(rc.ComparisonError, match="sample follows official, sample-coarse strict"):
        rc.compare(GOOD, replace(COARSE, convention="strict"))
    with pytest.raises(
        rc.ComparisonError, match="not of the same examples: their columns index differ"
    ):
        rc.compare(GOOD, replace(COARSE, per_example=COARSE.per_example.slice(1)))
    with pytest.raises(rc.ResultsError, match="holds no result"):
        rc.compare(GOOD, tmp_path)
    with pytest.raises(rc.UsageError, match=r"between 0 and 1, not 1\.5"):
        rc.compare(GOOD, COARSE, level=1.5)
    with pytest.raises(rc.UsageError, match="replicates or more"):
        rc.compare(GOOD, COARSE, level=0.99, replicates=50)
    with pytest.raises(rc.UsageError, match="top must be 0 or more"):
        rc.compare(GOOD, COARSE, top=-1)


def test_empty_masks_and_a_single_image(tmp_path):
    """Where the uncertainty cannot be told the scores still are."""
    one = GOOD.per_example.slice(0, 4)
    assert len(set(one["image_id"].to_pylist())) == 1
    found = rc.compare(
        replace(GOOD, per_example=one), replace(COARSE, per_example=COARSE.per_example.slice(0, 4))
    )
    assert found.miou.se is found.ciou.low is None
    assert found.miou.difference == found.a.miou - found.b.miou
    assert "·" in comparison_table(found)
    assert json.loads(json.dumps(found.summary(), allow_nan=False))["miou"]["se"] is None


def test_saved_whole_and_not_over_another(tmp_path):
    found = rc.compare(GOOD, COARSE)
    found.save(tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "comparison.json",
        "comparison.parquet",
    ]
    table = pq.read_table(tmp_path / "out" / "comparison.parquet")
    assert table.equals(found.per_example)
    assert json.loads((tmp_path / "out" / "comparison.json").read_text("utf-8")) == json.loads(
        json.dumps(found.summary())
    )
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    with pytest.raises(rc.UsageError, match="already holds a result"):
        rc.compare(COARSE, GOOD).save(tmp_path / "out")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
    rc.compare(COARSE, GOOD).save(tmp_path / "out", overwrite=True)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} != before


# The command --------------------------------------------------------------------------------------


def test_folders_and_files_compare_alike(runs, capsys, monkeypatch):
    forms = [["a.jsonl", "sample-coarse"], ["a", "sample-coarse"], ["pair=[a.jsonl,b]"], ["a", "b"]]
    found = []
    for form in forms:
        if form == ["a", "b"]:  # needs no dataset at all
            monkeypatch.setattr(
                "refcocom_gpu.dataset.table.load_dataset", lambda *_, **__: pytest.fail("loaded")
            )
            words = form
        else:
            words = [*form, "dataset=sample"]
        assert main(["compare", *words, "json=true"]) == 0
        found.append(json.loads(capsys.readouterr().out))
        for side in "ab":
            del found[-1][side]["name"], found[-1][side]["predictions"]
    assert found[0] == found[1] == found[2] == found[3]
    assert found[0]["miou"]["difference"] == GOOD.miou - COARSE.miou
    assert sorted(p.name for p in runs.iterdir()) == ["a", "a.jsonl", "b"]


def test_table_and_files(runs, capsys):
    assert main(["compare", "a", "b", "top=3", "output_dir=out"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("A  a\nB  b\nsample: 297 examples in 36 images; convention official;")
    assert (
        f"{100 * GOOD.miou:8.2f}{100 * COARSE.miou:8.2f}{100 * (GOOD.miou - COARSE.miou):+8.2f}"
        in out
    )
    assert "… and 5 more with less sure differences (top=8)" in out
    assert out.endswith("Wrote out/comparison.json\n      out/comparison.parquet\n")
    assert max(map(len, out.splitlines())) <= 120
    assert main(["compare", "a", "b", "output_dir=out"]) == 2
    assert "pass overwrite=true" in capsys.readouterr().err
    assert main(["compare", "b", "a", "output_dir=out", "overwrite=true", "quiet=true"]) == 0
    assert capsys.readouterr().out == ""
    assert json.loads(Path("out/comparison.json").read_text("utf-8"))["a"]["name"] == "b"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "compare takes two, A and B, not 0"),
        (["a"], 2, "compare takes two, A and B, not 1"),
        (["a", "b", "a.jsonl"], 2, "compare takes two, A and B, not 3"),
        (["a", "nowhere", "dataset=sample"], 2, "no prediction file at nowhere"),
        (["a", "b", "level=2"], 2, "between 0 and 1, not 2.0"),
        (["a", "b", "replicates=3"], 2, "replicates or more"),
        (["a", "b", "top=-1"], 2, "top must be 0 or more"),
        (["a", "b", "threads=-1"], 2, "threads must be 0"),
        (["a", "broken"], 3, "is not the table that summary.json was written with"),
        (["a", "half"], 3, "summary.json is missing"),
        (
            ["a", "other"],
            3,
            "results of different datasets cannot be compared: a of sample (fingerprint",
        ),
    ],
)
def test_wrong_calls(runs, capsys, words, code, said):
    shutil.copytree("b", "broken")
    Path("broken/per_example.parquet").write_bytes(Path("a/per_example.parquet").read_bytes())
    Path("half").mkdir()
    shutil.copy("a/per_example.parquet", "half")
    dataset = {**GOOD.info["dataset"], "source": "elsewhere", "fingerprint": "0" * 32}
    replace(GOOD, info={**GOOD.info, "dataset": dataset}).save("other")
    assert main(["compare", *words]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


def test_missing_predictions_are_said(runs, capsys):
    lines = Path("a.jsonl").read_text("utf-8").splitlines()
    Path("part.jsonl").write_text("\n".join(lines[:200]), "utf-8")
    assert main(["compare", "a", "part.jsonl", "dataset=sample"]) == 3
    assert "97 missing" in capsys.readouterr().err
    assert main(["compare", "a", "part.jsonl", "dataset=sample", "missing=zero"]) == 0
    assert "\nB  part.jsonl   (97 missing, scored as empty)\n" in capsys.readouterr().out


def test_two_folders_need_no_torch(runs):
    from test_cli import modules_after

    code = "from refcocom_gpu.cli.main import main\nassert main(['compare', 'a', 'b', 'quiet=true']) == 0"
    assert modules_after(code, "torch", "numba", "datasets", "scipy", "huggingface_hub") == "[]"
    code = "from refcocom_gpu.cli.main import main\nmain(['compare', '--help'])"
    assert modules_after(code, "torch", "scipy", "numpy", "pyarrow", "hydra") == "[]"


def test_predictions_are_scored_on_the_dataset_of_the_result(runs, capsys):
    assert main(["compare", "a", "sample-coarse", "json=true"]) == 0
    said = capsys.readouterr().out
    assert main(["compare", "a", "sample-coarse", "json=true", "dataset=sample"]) == 0
    assert capsys.readouterr().out == said
