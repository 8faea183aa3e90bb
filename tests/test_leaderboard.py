"""The leaderboard: exact scores, the same bytes in any order, and what cannot be ranked."""

import csv
import json
import random
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import make_case, sample_case

from refcocom_gpu.errors import UsageError
from refcocom_gpu.scores import metrics
from refcocom_gpu.scores import uncertainty as un
from refcocom_gpu.scores.leaderboard import FILES, write_leaderboard
from refcocom_gpu.scores.leaderboard.rows import make_leaderboard
from refcocom_gpu.scores.leaderboard.typed import typed_columns

STORE = sample_case().store
DATASET = STORE.dataset
N = len(STORE)
AREA = STORE.areas[STORE.example_sample]
IMAGE = DATASET.image_ids[DATASET.sample_image[STORE.example_sample]]
NONE = np.zeros(0, np.int64)


@dataclass(frozen=True)
class File:
    """As the sweep will hand them over."""

    path: str
    model: str
    columns: dict[str, Any] = field(default_factory=dict)
    counts: np.ndarray | None = None
    absent: np.ndarray | None = field(default_factory=lambda: NONE)
    error: str | None = None
    warnings: tuple[str, ...] = ()
    digest: str | None = "0" * 32
    measured: dict[str, np.ndarray] = field(default_factory=dict)


def drawn(seed, quality, name=None, **options):
    """A model that finds a share of each mask, about `quality` of it, and a little beside it."""
    rng = np.random.default_rng(seed)
    inside = np.rint(AREA * rng.beta(8 * quality, 8 * (1 - quality), N)).astype(np.int64)
    counts = np.stack([inside, inside + rng.integers(0, 60, N)], axis=1)
    name = name or f"m{seed}"
    return File(f"runs/{name}.parquet", name, options.pop("columns", {}), counts, **options)


def failed(name):
    return File(f"runs/{name}.jsonl", name, {"step": 9}, error=f"2 problems (2 missing)\n  {name}")


MODELS = [drawn(k, 0.5 + 0.05 * k, columns={"step": 100 * k, "lr": 1 / (k + 1)}) for k in range(6)]


def write(folder, results, **options):
    options = {
        "convention": "official",
        "precision_strict": False,
        "replicates": 499,
        "seed": 3,
    } | options
    paths = write_leaderboard(results, STORE, folder, **options)
    assert [path.name for path in paths] == list(FILES)
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)
    return {path.name: path.read_bytes() for path in paths}


def rows(results, **options):
    return make_leaderboard(results, STORE, replicates=499, **options).table.to_pylist()


def test_bytes_do_not_depend_on_the_order(tmp_path):
    twins = [replace(MODELS[2], path="runs/twin.parquet"), replace(MODELS[2], model="another")]
    # All alike but in what is known of them.
    twins += [replace(MODELS[2], columns={"step": k}) for k in range(3)]
    results = [*MODELS, *twins, failed("b"), failed("a")]
    first = write(tmp_path / "0", results)
    assert write(tmp_path / "0", results) == first
    for k in range(1, 5):
        random.Random(k).shuffle(results)
        assert write(tmp_path / str(k), results) == first
    assert write(tmp_path / "seed", results, seed=4) != first


@pytest.mark.parametrize("strict", [False, True])
def test_scores_are_those_of_the_counts(strict):
    found = {row["model"]: row for row in rows(MODELS, precision_strict=strict)}
    for model in MODELS:
        row = found[model.model]
        triple = model.counts[:, 0], model.counts[:, 1], AREA
        ious = metrics.iou(*triple)
        assert row["miou"] == metrics.mean(ious)
        assert row["ciou"] == metrics.ciou(*triple)
        for x, share in metrics.precision_at(ious, strict=strict).items():
            assert row[f"pr{round(100 * x)}"] == share
        assert (row["n_examples"], row["n_missing"], row["n_empty"]) == (
            N,
            0,
            int((model.counts[:, 1] == 0).sum()),
        )
    # What the text formats print is read back to the same number.
    assert 0 < row["miou"] < 1


def test_sorted_and_ranked_as_the_bootstrap_says():
    found = rows([*MODELS, failed("x")])
    assert [row["model"] for row in found] == ["m5", "m4", "m3", "m2", "m1", "m0", "x"]
    ious = np.stack([metrics.iou(*m.counts.T, AREA) for m in reversed(MODELS)], axis=1)
    ratio = un.ratio_by_image(IMAGE, ious)
    pairs = un.pairwise_intervals(ratio, n_replicates=499)
    for k, row in enumerate(found[:6]):
        assert [row["rank_low"], row["rank_high"]] == un.rank_intervals(pairs)[k].tolist()
        assert row["like_best"] == un.like_best(pairs)[k]
        assert row["miou_se"] == un.cluster_se(ratio)[k]
        assert row["rank_low"] <= row["rank"] == k + 1 <= row["rank_high"]
        assert row["difference"] == row["miou"] - found[0]["miou"]
        # The grid of sums rounds by less than 2⁻³⁷.
        assert row["difference_low"] == pytest.approx(pairs.low[k, 0], abs=1e-11)
        assert row["difference_high"] == pytest.approx(pairs.high[k, 0], abs=1e-11)
        assert row["like_best"] == (row["difference_high"] >= 0)
    assert not found[5]["like_best"]
    assert found[6] == dict.fromkeys(found[6]) | {
        "model": "x", "path": "runs/x.jsonl", "error": failed("x").error, "step": 9, "digest": "0" * 32,
    }  # fmt: skip


def test_identical_files_share_a_rank():
    twin = replace(MODELS[5], path="copy.parquet", model="twin")
    found = rows([twin, *MODELS])
    assert [(row["model"], row["rank"]) for row in found[:3]] == [("m5", 1), ("twin", 1), ("m4", 3)]
    for row in found[:2]:
        assert (row["difference"], row["difference_low"], row["difference_high"]) == (0, 0, 0)
        assert row["like_best"]
    assert found[0]["rank_low"] == found[1]["rank_low"] == 1
    assert found[1]["rank_high"] >= 2
    # Nothing but copies: no pair varies.
    copies = rows([twin, MODELS[5]])
    assert [(row["rank"], row["rank_low"], row["rank_high"]) for row in copies] == [(1, 1, 2)] * 2


def test_one_and_no_model(tmp_path):
    alone = write(tmp_path / "one", [MODELS[0]])
    content = json.loads(alone["leaderboard.json"])
    (row,) = content["rows"]
    assert content["uncertainty"]["critical_value"] is None
    assert (row["rank"], row["rank_low"], row["rank_high"], row["like_best"]) == (1, 1, 1, True)
    assert row["miou_se"] > 0
    none = write(tmp_path / "none", [failed("b"), failed("a")])
    content = json.loads(none["leaderboard.json"])
    assert (content["n_models"], content["n_failed"]) == (0, 2)
    assert [(row["model"], row["rank"]) for row in content["rows"]] == [("a", None), ("b", None)]
    text = none["leaderboard.md"].decode()
    assert "| rank |" not in text
    assert "- a (runs/a.jsonl): 2 problems (2 missing)\n" in text
    empty = write(tmp_path / "nothing", [])
    assert json.loads(empty["leaderboard.json"])["rows"] == []
    assert empty["leaderboard.csv"].decode().count("\n") == 1


def test_one_image_ranks_without_uncertainty(tmp_path):
    """Scores are there; how sure they are cannot be told from one image."""
    from refcocom_gpu import MaskStore, load_dataset
    from refcocom_gpu.dataset.sample import make_records

    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps(make_records()[0]))
    store = make_case(MaskStore.build(load_dataset(path, cache=False), cache=False)).store
    counts = np.repeat(store.areas[store.example_sample][:, None], 2, axis=1)
    results = [File("a", "a", counts=counts), File("b", "b", counts=counts // 2)]
    write_leaderboard(results, store, tmp_path / "out")
    first, second = json.loads((tmp_path / "out" / "leaderboard.json").read_text())["rows"]
    assert (first["rank"], second["rank"], first["miou"]) == (1, 2, 1)
    assert first["miou_se"] is first["rank_low"] is first["like_best"] is None
    assert "| 1 | a | 100.00 |  |" in (tmp_path / "out" / "leaderboard.md").read_text()


def test_completeness_is_said(tmp_path):
    counts = MODELS[5].counts.copy()
    counts[[3, 5, 8]] = 0
    partial = File("p", "partial", counts=counts, absent=np.array([3, 8]))
    (row,) = rows([partial])
    assert (row["n_examples"], row["n_missing"], row["n_empty"]) == (N, 2, 1)
    assert write(tmp_path, [partial])["leaderboard.md"].decode().rstrip().endswith("| 2 |")


def test_what_could_not_be_read_has_no_digest():
    unread = [replace(failed("same"), digest=None, absent=None) for _ in range(2)]
    found = rows([*unread, replace(MODELS[0], absent=None), replace(failed("same"), digest="a")])
    assert [row["digest"] for row in found] == ["0" * 32, None, None, "a"]
    assert found[0]["n_missing"] == 0


def test_columns_of_manifests_have_one_type():
    big = 2**60
    found = typed_columns(
        [
            {"step": 1, "lr": 1, "flag": True, "tag": "7", "mixed": True, "big": big, "n": np.int64(4), "inf": 1.5},
            {"step": None, "lr": 1e-4, "flag": False, "tag": "b", "mixed": 1, "big": 0.5, "list": [1, "é"]},
            {"step": 3, "other": None, "mixed": None, "huge": 2**64, "inf": float("inf"), "odd": "a\udcff"},
        ]
    )  # fmt: skip
    assert {name: str(column.type) for name, column in found.items()} == {
        "step": "int64", "lr": "double", "flag": "bool", "tag": "string", "mixed": "string", "big": "string",
        "n": "int64", "inf": "double", "list": "string", "other": "string", "huge": "string", "odd": "string",
    }  # fmt: skip
    assert found["step"].to_pylist() == [1, None, 3]
    assert found["mixed"].to_pylist() == ["true", "1", None]
    assert found["big"].to_pylist() == [str(big), "0.5", None]
    assert found["inf"].to_pylist() == [1.5, None, None]
    assert found["list"].to_pylist() == [None, '[1, "é"]', None]
    assert found["odd"].to_pylist() == [None, None, "a\\udcff"]


def test_columns_that_are_taken_keep_apart():
    columns = {"Rank": 7, "mIoU": 0.5, "manifest.rank": 8, "step": 1}
    (row,) = rows([replace(MODELS[0], columns=columns)])
    assert row["rank"] == 1
    assert row["miou"] != 0.5
    assert (row["manifest.Rank"], row["manifest.mIoU"], row["step"]) == (7, 0.5, 1)
    assert row["manifest.manifest.rank"] == 8
    names = list(row)
    assert names[:3] == ["rank", "model", "path"]
    assert names.index("step") < names.index("miou")
    assert names[-2:] == ["error", "warnings"]


def test_formats_agree(tmp_path):
    odd = replace(
        MODELS[1], model='a|b\n"c", *d* é', path="runs/=1,2", columns={"note": "x\ny|z", "ok": True}
    )
    files = write(tmp_path, [*MODELS, odd, failed("f")])
    table = pq.read_table(tmp_path / "leaderboard.parquet").to_pylist()
    content = json.loads(files["leaderboard.json"])
    assert content["rows"] == table
    with (tmp_path / "leaderboard.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    for found, expected in zip(read, table, strict=True):
        assert list(found) == list(expected)
        for name, value in expected.items():
            told = str(value).lower() if isinstance(value, bool) else value
            assert found[name] == ("" if value is None else str(told))
            assert not isinstance(value, float) or float(found[name]) == value
    lines = files["leaderboard.md"].decode().splitlines()
    assert r'a\|b "c", \*d\* é' in next(line for line in lines if "é" in line)
    cells = {line.replace(r"\|", "").count("|") for line in lines if line.startswith("|")}
    assert cells == {10 + len(odd.columns | MODELS[0].columns)}
    assert f"{100 * table[0]['miou']:.2f} ± {100 * table[0]['miou_se']:.2f}" in lines[4]
    assert content["dataset"]["fingerprint"] == DATASET.fingerprint
    assert content["uncertainty"]["replicates"] == 499
    of_scores = {"miou_per_instance", "hard_pass_rate", "miou_small"}
    assert {"miou_se", "best_of", "difference", "rank", "like_best"} | of_scores == set(
        content["uncertainty"]["meaning"]
    )


def test_duckdb_and_polars_read_it(tmp_path):
    results = [*MODELS, failed("f")]
    write(tmp_path, results)
    path = tmp_path / "leaderboard.parquet"
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")
    best = duckdb.sql(
        f"SELECT model, step, miou FROM '{path}' WHERE like_best ORDER BY rank"
    ).fetchall()
    expected = [row for row in rows(results, seed=3) if row["like_best"]]
    assert best == [(row["model"], row["step"], row["miou"]) for row in expected]
    polars = pytest.importorskip("polars", reason="Polars is not installed")
    frame = polars.read_parquet(path)
    assert frame["lr"].dtype == polars.Float64
    assert frame.filter(polars.col("error").is_not_null())["model"].to_list() == ["f"]
    assert (
        polars.read_csv(tmp_path / "leaderboard.csv")["miou"].to_list() == frame["miou"].to_list()
    )


def test_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UsageError, match=r"level 0\.95 needs 19 replicates or more, not 10"):
        write_leaderboard(MODELS, STORE, tmp_path / "out", replicates=10)
    with pytest.raises(
        UsageError, match=r"runs/m0\.parquet: counts of shape \(3, 2\) where \[297, 2\]"
    ):
        write_leaderboard(
            [replace(MODELS[0], counts=MODELS[0].counts[:3])], STORE, tmp_path / "out"
        )
    with pytest.raises(UsageError, match="unknown convention 'mine'"):
        write_leaderboard(MODELS, STORE, tmp_path / "out", convention="mine")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write to"):
        write_leaderboard(MODELS, STORE, tmp_path / "file")


def test_nothing_is_left_of_a_write_that_failed(tmp_path, monkeypatch):
    from pathlib import Path

    before = write(tmp_path, MODELS[:2])
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(UsageError, match="disk full"):
        write_leaderboard(MODELS, STORE, tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
