"""The folder of a sweep: whatever is damaged in it, a rerun makes it whole; and each row is read back from it."""

import json
import os
import shutil
from pathlib import Path

import duckdb
import numpy as np
import polars
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student
from sweeps import STORE, contents, made_runs, sweep

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.scores.sweep_folder import EXAMPLES, INDEX
from refcocom_gpu.sweep import ledger
from refcocom_gpu.sweep.ledger import Ledger
from refcocom_gpu.sweep.run import Ranking
from refcocom_gpu.utils import files
from refcocom_gpu.utils.files import VERIFIED, parquet_bytes, replacing, write_files

QUICK = Ranking(replicates=99)


def table_of(rows):
    lines = [list(rows[0]), *(row.values() for row in rows)]
    return "\n".join(",".join("" if v is None else str(v) for v in line) for line in lines)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A sweep of two checkpoints of one model and one of another, by a manifest; nothing in it changes any more."""
    root = tmp_path_factory.mktemp("made")
    made_runs(root / "runs", 3)
    rows = [
        {"path": "runs/step-00/preds.jsonl", "model": "lisa", "step": 6000, "note": "a"},
        {"path": "runs/step-02/preds.jsonl", "model": "lisa", "step": 3000, "note": None},
        {"path": "runs/step-01/preds.jsonl", "model": "glamm", "step": 6000, "note": "a"},
    ]
    (root / "m.csv").write_text(table_of(rows))
    sweep(None, root / "out", manifest=root / "m.csv", ranking=QUICK)
    return root


@pytest.fixture
def again(made, tmp_path):
    """The folder of that sweep, copied, and a function that sweeps into it again."""
    folder = tmp_path / "out"
    shutil.copytree(made / "out", folder)
    return folder, lambda **options: sweep(
        None, folder, manifest=made / "m.csv", ranking=QUICK, **options
    )


def flip(content, bit):
    changed = bytearray(content)
    changed[bit // 8 % len(content)] ^= 1 << bit % 8
    return bytes(changed)


DAMAGES = {
    "emptied": lambda content, other: b"",
    "halved": lambda content, other: content[: len(content) // 2],
    "a bit flipped": lambda content, other: flip(content, 4 * len(content) + 3),
    "the content of another": lambda content, other: other,
    "longer": lambda content, other: content + b"\0",
    "deleted": lambda content, other: None,
}


def known_of(folder):
    """The hashes that a sweep keeps of what it wrote, which a copy of its folder shares."""
    return {
        file: digest for file, (_, digest) in Ledger(folder).known.items() if file[:1] not in "/\\"
    }


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_rerun_mends_every_file(again, damage, made):
    folder, rerun = again
    mends_every_file(folder, rerun, DAMAGES[damage])
    assert contents(folder) == contents(made / "out")


def mends_every_file(folder, rerun, damage):
    """Walks over every file that a sweep of three sets wrote, also the hidden ones."""
    before = contents(folder)
    rerun()
    whole, known = contents(folder), known_of(folder)
    assert whole == before
    names = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"]
    assert len(names) == 4 + 2 + 3 + 3 + 1
    for k, path in enumerate(names):
        content, state = path.read_bytes(), path.stat()
        same_kind = [p for p in names if p.suffix == path.suffix and p != path] or [names[k - 1]]
        damaged = damage(content, same_kind[0].read_bytes())
        if damaged is None:
            path.unlink()
        else:
            path.write_bytes(damaged)
            # As a disk that fails does, and not an editor.
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        outcome = rerun()
        assert contents(folder) == whole, path
        assert known_of(folder) == known, path
        assert outcome.n_failed == 0
        if path.parent.name == "results":
            assert outcome.n_scored == 1
        if path.parent.parent.name == "per_example":
            assert outcome.repaired == (path.relative_to(folder).as_posix(),)


def test_the_query_of_the_readme_survives(again):
    folder, rerun = again
    query = f"SELECT count(*) FROM read_parquet('{folder}/per_example/*/*.parquet', hive_partitioning=true)"
    next(folder.glob("per_example/*/*.parquet")).write_bytes(b"")
    with pytest.raises(duckdb.Error):
        duckdb.sql(query).fetchall()
    rerun()
    assert duckdb.sql(query).fetchall() == [(3 * len(STORE),)]


def test_content_is_read_when_it_may_have_changed(again, monkeypatch):
    """A file is hashed once after it was written or copied, and then trusted until its times change, or on request."""
    folder, rerun = again
    hashed = []
    real = files.hash_file
    monkeypatch.setattr(ledger, "is_settled", lambda path: True)
    monkeypatch.setattr(ledger, "hash_file", lambda p: hashed.append(p.name) or real(p))
    every = sorted(p.name for p in folder.glob("per_example/*/*.parquet"))
    rerun()
    assert sorted(hashed) == every
    hashed.clear()
    rerun()
    assert hashed == []
    (touched,) = folder.glob(f"per_example/*/{every[0]}")
    os.utime(touched, (1, 1))
    rerun()
    assert hashed == every[:1]
    hashed.clear()
    # A disk that lost a bit changed no time, which is simulated here by tokens that never change.
    monkeypatch.setattr(ledger, "token_of", lambda path: "as before")
    rerun()
    path = next(folder.glob("per_example/*/*.parquet"))
    content = path.read_bytes()
    path.write_bytes(flip(content, 1000))
    assert rerun().repaired == ()
    assert rerun(verify=True).repaired == (path.relative_to(folder).as_posix(),)
    assert path.read_bytes() == content


@given(bit=st.integers(0, 10**6), data=st.binary(min_size=0, max_size=40))
def test_damaged_pages_are_refused(bit, data):
    """Of a flipped bit anywhere in the pages, Arrow says so, or reads the same numbers."""
    import pyarrow as pa

    table = pa.table({"a": pa.array(np.arange(500) % 7), "b": pa.array([data] * 500)})
    content = parquet_bytes(table)
    footer = 8 + int.from_bytes(content[-8:-4], "little")
    damaged = flip(content[:-footer], bit) + content[-footer:]
    try:
        read = pq.ParquetFile(pa.BufferReader(damaged), **VERIFIED).read()
    except (OSError, pa.ArrowException):
        return
    assert read.equals(table)


def test_our_prediction_files_have_checksums(tmp_path):
    dataset = STORE.dataset
    with rc.PredictionWriter(tmp_path / "p.parquet", dataset) as writer:
        for index in range(len(STORE)):
            writer.write(index, STORE.mask(index))
    content = (tmp_path / "p.parquet").read_bytes()
    assert rc.score(tmp_path / "p.parquet", STORE).miou == 1
    meta = pq.ParquetFile(tmp_path / "p.parquet").metadata.row_group(0)
    column = next(
        meta.column(k)
        for k in range(meta.num_columns)
        if meta.column(k).path_in_schema == "segmentation.counts"
    )
    middle = column.data_page_offset + column.total_compressed_size // 2
    (tmp_path / "p.parquet").write_bytes(flip(content, 8 * middle))
    with pytest.raises(rc.RefCOCOMError, match=r"(?i)crc|checksum"):
        rc.score(tmp_path / "p.parquet", STORE)


def test_content_is_on_the_disk_before_its_name(tmp_path, monkeypatch):
    """In this order: the file is synced, renamed, and its folder synced."""
    seen = []
    real_sync, real_replace = files.sync, Path.replace
    monkeypatch.setattr(files, "sync", lambda p: seen.append(("sync", p.name)) or real_sync(p))
    monkeypatch.setattr(
        Path, "replace", lambda a, b: seen.append(("rename", b.name)) or real_replace(a, b)
    )
    with replacing(tmp_path / "x") as temporary:
        temporary.write_bytes(b"1")
    assert [what for what, _ in seen] == ["sync", "rename", "sync"]
    assert seen[0][1] == temporary.name
    assert seen[1:] == [("rename", "x"), ("sync", tmp_path.name)]
    seen.clear()
    write_files(tmp_path / "f", {"a": b"1", "b": b"2"})
    renames = [name for what, name in seen if what == "rename"]
    assert renames == ["a", "b"]
    for name in renames:
        assert any(
            what == "sync" and f".{name}." in of
            for what, of in seen[: seen.index(("rename", name))]
        )


# ---------------------------------------------------------------- manifest columns and rows


def test_columns_of_the_manifest_are_in_every_table(made):
    out = made / "out"
    rows = f"read_parquet('{out}/per_example/*/*.parquet', hive_partitioning=true)"
    scores = duckdb.sql(
        f"SELECT model, step, note, avg(iou) FROM {rows} GROUP BY model, step, note ORDER BY model, step"
    ).fetchall()
    board = pq.read_table(out / "leaderboard.parquet").to_pylist()
    expected = sorted((r["model"], r["step"], r["note"], r["miou"]) for r in board if r["note"])
    found = [row for row in scores if row[2]]
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    assert [row[3] for row in found] == pytest.approx([row[3] for row in expected])
    assert (scores[1][0], scores[1][1], scores[1][2]) == ("lisa", 3000, None)
    assert polars.scan_parquet(out / "per_example").collect()["step"].dtype == polars.Int64
    assert "| rank | model | step | note | mIoU |" in (out / "leaderboard.md").read_text()
    head = (out / "leaderboard.csv").read_text().splitlines()[0]
    assert head.startswith("rank,model,path,step,note,miou,")
    assert {row["step"] for row in json.loads((out / "leaderboard.json").read_text())["rows"]} == {
        3000,
        6000,
    }


def test_types_and_names_of_columns_are_the_same_in_every_file(tmp_path, made):
    rows = [
        {"path": str(made / "runs/step-00/preds.jsonl"), "step": 1, "iou": 5, "tag": 3},
        {"path": str(made / "runs/step-01/preds.jsonl"), "step": 2.5, "tag": "b"},
        {"path": "gone.jsonl", "extra": True},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    outcome = sweep(None, tmp_path / "out", manifest=tmp_path / "m.jsonl", ranking=QUICK)
    schemas = [pq.read_schema(p) for p in tmp_path.glob("out/per_example/*/*.parquet")]
    assert len(schemas) == 2
    assert schemas[0].equals(schemas[1])
    assert str(schemas[0].field("step").type) == "double"
    for name in ("step", "manifest.iou", "tag", "extra"):
        assert name in schemas[0].names
        assert name in outcome.leaderboard.manifest
    assert (schemas[0].names.count("iou"), outcome.n_failed) == (1, 1)


def test_rows_are_results(made):
    results = rc.load_results(made / "out")
    assert isinstance(results, rc.SweepResults)
    assert list(results) == [1, 2, 3]
    board = pq.read_table(made / "out" / "leaderboard.parquet").to_pylist()
    for number, row in enumerate(board, 1):
        scored = rc.score(made / row["path"], STORE)
        result = results[number]
        assert result.per_example.equals(scored.per_example)
        assert result.per_example.schema.equals(scored.per_example.schema)
        assert (result.miou, result.ciou) == (row["miou"], row["ciou"])
        assert result.info["dataset"] == scored.info["dataset"]
        assert result.info["predictions"]["xxh3_128"] == scored.info["predictions"]["xxh3_128"]
    names = [row["name"] for row in results.rows]
    assert sorted(names) == ["glamm", "lisa@3000", "lisa@6000"]
    for name in (
        "lisa@6000",
        "runs/step-00/preds.jsonl",
        "lisa@runs/step-00/preds.jsonl",
        "lisa@a",
    ):
        assert results[name].miou == results["lisa@6000"].miou
    assert rc.load_results(f"{made / 'out'}:lisa@6000").miou == results["lisa@6000"].miou
    with pytest.raises(KeyError, match="holds 2 rows 'lisa': lisa@"):
        _ = results["lisa"]
    with pytest.raises(rc.UsageError, match="holds no row '4'; rows are 1 to 3, or by name: "):
        rc.load_results(f"{made / 'out'}:4")
    assert "nothing" not in results


def test_damaged_rows_are_refused(again):
    folder, _ = again
    results = rc.load_results(folder)
    path = folder / results.rows[0]["per_example"]
    path.write_bytes(flip(path.read_bytes(), 999))
    with pytest.raises(rc.ResultsError, match="run the sweep again"):
        _ = results[1]
    assert results[2].miou
    (folder / EXAMPLES).unlink()
    with pytest.raises(rc.ResultsError, match=r"examples\.parquet cannot be read"):
        _ = results[2]
    index = folder / INDEX
    index.write_text(index.read_text().replace('"step": 3000', '"step": 3001'))
    with pytest.raises(rc.ResultsError, match="was altered since it was written"):
        rc.load_results(folder)


def test_compare_takes_rows(made, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(made)
    assert main(["compare", "out:1", "out:lisa@3000", "json=true"]) == 0
    printed = json.loads(capsys.readouterr().out)
    results = rc.load_results("out")
    assert (printed["a"]["miou"], printed["b"]["miou"]) == (
        results[1].miou,
        results["lisa@3000"].miou,
    )
    assert printed["b"]["name"] == "lisa, step 3000 (out:lisa@3000)"
    assert printed["b"]["sweep"]["columns"] == {"step": 3000, "note": None}
    assert rc.compare("out:1", results[2]).names[0] == printed["a"]["name"]
    # A row and a prediction file; the latter is scored first.
    words = ["compare", "out:lisa@6000", "runs/step-00/preds.jsonl", "dataset=sample", "json=true"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["tied"] == len(STORE)
    for words, message in (
        (
            ["out", "out:1"],
            "out holds the results of a sweep: name one of them, as in out:1 or out:",
        ),
        (["out:lisa", "out:1"], "holds 2 rows 'lisa'"),
        (["out:7", "out:1"], "rows are 1 to 3"),
    ):
        assert main(["compare", *words]) == 2
        assert message in capsys.readouterr().err


def test_a_path_with_a_colon_is_that_path(made, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "out", "out")
    rc.score(made / "runs/step-01/preds.jsonl", STORE).save("out:1")
    expected = rc.load_results("out:glamm").miou
    assert rc.load_results("out:1").miou == expected
    Path("out:2").write_text((made / "runs/step-01/preds.jsonl").read_text())
    Path("out:2").rename("out:2.jsonl")
    assert main(["compare", "out:2.jsonl", "out:1", "dataset=sample", "json=true"]) == 0
    assert json.loads(capsys.readouterr().out)["a"]["miou"] == expected
    # A folder's name may hold colons too, and a model's.
    shutil.move("out", "o:u:t")
    assert rc.load_results("o:u:t:glamm").miou == expected


# ---------------------------------------------------------------- who won


def test_the_best_of_each(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [
        "sweep",
        f"manifest={made / 'm.csv'}",
        "dataset=sample",
        "output_dir=out",
        "replicates=99",
    ]
    assert main([*words, "json=true"]) == 0
    whole = pq.read_table("out/leaderboard.parquet").to_pylist()
    capsys.readouterr()
    assert main([*words, "best_per=model"]) == 0
    out = capsys.readouterr().out
    board = pq.read_table("out/leaderboard.parquet")
    rows = board.to_pylist()
    assert len(rows) == 2
    for model in ("lisa", "glamm"):
        of_model = [row for row in whole if row["model"] == model]
        (row,) = (row for row in rows if row["model"] == model)
        best = max(of_model, key=lambda r: r["miou"])
        assert (row["step"], row["miou"], row["best_of"]) == (
            best["step"],
            best["miou"],
            len(of_model),
        )
        # The intervals allow for the choice: they are those of all three files.
        if row["rank"] == 2:
            assert row["difference_low"] == pytest.approx(
                best["difference_low"] - (best["difference"] - row["difference"])
            )
    assert [row["rank"] for row in rows] == [1, 2]
    note = "Each row is the best of all with the same model, chosen by its mIoU on this set."
    assert note in " ".join(out.split())
    assert note in Path("out/leaderboard.md").read_text()
    assert json.loads(Path("out/leaderboard.json").read_text())["selection"].startswith(note)
    assert board.schema.metadata[b"selection"].decode().startswith(note)
    # What has no row is still there.
    results = rc.load_results("out")
    assert (len(results), len(results.rows)) == (2, 3)
    left_out = next(row["name"] for row in results.rows if row["row"] is None)
    assert results[left_out].n_examples == len(STORE)
    assert main([*words, "best_per=stp"]) == 2
    assert (
        "best_per=stp: there is no such column; choose model or step or note"
        in capsys.readouterr().err
    )


def test_the_first_ten_are_printed(tmp_path, monkeypatch, capsys, made):
    monkeypatch.chdir(tmp_path)
    rows = [
        {
            "path": str(made / f"runs/step-0{k % 3}/preds.jsonl"),
            "model": f"org/{'very-' * 8}long-{k}",
            "step": 1000 * k,
            **{f"column-{c}": "x" for c in range(4)},
        }
        for k in range(12)
    ]
    Path("m.csv").write_text(table_of(rows))
    words = ["sweep", "manifest=m.csv", "dataset=sample", "output_dir=out", "replicates=99"]
    assert main(words) == 0
    out = capsys.readouterr().out
    table = out.split("\n\n")[1].splitlines()
    assert len(table) == 11
    assert max(map(len, out.split("Wrote")[0].splitlines())) <= 100
    assert table[0].split()[:4] == ["rank", "model", "step", "column-0"]
    assert table[0].endswith("mIoU  95 % interval   cIoU  Pr@0.5")
    first = pq.read_table("out/leaderboard.parquet").to_pylist()[0]
    assert f"{100 * first['miou']:.2f}" in table[1]
    reach = student.ppf(0.975, rc.load_dataset("sample").n_images - 1) * first["miou_se"]
    low, high = (100 * (first["miou"] + sign * reach) for sign in (-1, 1))
    assert f"{low:.2f} … {high:.2f}" in table[1]
    assert f"long-{first['model'].rsplit('-', 1)[1]} " in table[1]
    assert "… and 2 more in leaderboard.md" in out
    assert "Columns left out here: column-" in out


def test_python_says_the_same(made, tmp_path):
    by_call = rc.sweep(None, STORE, tmp_path / "out", manifest=made / "m.csv", replicates=99)
    assert by_call.n_scored == 3
    assert contents(tmp_path / "out") == contents(made / "out")
    with pytest.raises(rc.UsageError, match="a sweep needs predictions"):
        rc.sweep(None, STORE, tmp_path / "out")
    with pytest.raises(TypeError, match="value"):
        rc.sweep("sample", STORE, tmp_path / "out", value="logits")


def test_packages_of_the_same_name_may_be_called_and_imported():
    import inspect

    import refcocom_gpu.construct.run as construct_run
    import refcocom_gpu.sweep.run as run_module

    assert rc.sweep.run is run_module
    assert rc.construct.run is construct_run
    for package in (rc.sweep, rc.construct):
        assert callable(package)
        assert "output_dir" in inspect.signature(package).parameters
