"""Rows that come again: read once where the masks are the same, refused where they differ, in every kind of input."""

import json

import numpy as np
import pytest
from helpers import coco_encode, sample_case, write_jsonl, write_parquet
from hypothesis import given, settings
from hypothesis import strategies as st

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.masks import rle

CASE = sample_case()
N = len(CASE.masks)


def other(mask: np.ndarray) -> np.ndarray:
    changed = mask.copy()
    changed[0, 0] = not changed[0, 0]
    return changed


def write_npz(path, names, masks):
    np.savez(path, **dict(zip(names, masks, strict=True)))
    return path


def rank_files(tmp_path, kind, repeated, last):
    """Two shards: the second begins with the first examples again, of which one has the mask `last`."""
    masks = [*CASE.masks[:repeated], *CASE.masks[N // 2 :]]
    masks[repeated - 1] = last
    index = [*range(repeated), *range(N // 2, N)]
    files = []
    for number, (rows, of_rows) in enumerate(
        ((range(N // 2), CASE.masks[: N // 2]), (index, masks))
    ):
        keys = [CASE.dataset.key_of(k) for k in rows]
        path = tmp_path / f"rank-{number}.{kind}"
        if kind == "npz":
            write_npz(path, ["_".join(map(str, key)) for key in keys], of_rows)
        else:
            written = [
                {"sample_id": a, "sentence_idx": b, "segmentation": coco_encode(mask)}
                for (a, b), mask in zip(keys, of_rows, strict=True)
            ]
            write_jsonl(path, written) if kind == "jsonl" else write_parquet(path, written, 100)
        files.append(path)
    return files


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "npz"])
def test_ranks_that_repeat_examples(tmp_path, kind):
    files = rank_files(tmp_path, kind, 3, CASE.masks[2])
    with pytest.raises(rc.PredictionError, match=r"3 duplicate"):
        rc.score(files, CASE.store)
    result = CASE.check(files, repeats="identical")
    assert result.info["predictions"]["n_repeated"] == 3
    assert CASE.check(CASE_PAIRS, repeats="identical").info["predictions"]["n_repeated"] == 0


CASE_PAIRS = [(k, mask) for k, mask in enumerate(CASE.masks)]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "npz"])
def test_a_pixel_makes_another_mask(tmp_path, kind):
    files = rank_files(tmp_path, kind, 3, other(CASE.masks[2]))
    with pytest.raises(rc.PredictionError) as caught:
        rc.score(files, CASE.store, repeats="identical")
    (problem,) = caught.value.problems
    assert problem.kind == "duplicate"
    assert "another one here" in problem.message
    assert str(files[0]) in problem.message
    assert str(files[1]) in problem.where


def test_repeats_in_memory():
    logits = [mask * 2.0 - 1 for mask in CASE.masks]
    # The same mask in another form: logits, and their RLE.
    pairs = [*enumerate(logits), (1, coco_encode(CASE.masks[1])), (2, CASE.masks[2])]
    assert CASE.check(pairs, repeats="identical").info["predictions"]["n_repeated"] == 2
    empty = next(k for k, mask in enumerate(CASE.masks) if not mask.any())
    assert CASE.check([*pairs, (empty, None)], repeats="identical").n_missing == 0
    with pytest.raises(rc.PredictionError, match="another one here"):
        rc.score([*enumerate(logits), (empty, ~CASE.masks[empty])], CASE.store, repeats="identical")


def test_a_mask_that_cannot_be_read_is_named_whatever_comes_again():
    broken = {"size": list(CASE.masks[0].shape), "counts": "0"}
    for pairs in ([(0, broken), *CASE_PAIRS], [*CASE_PAIRS, (0, broken)]):
        with pytest.raises(rc.PredictionError):
            rc.score(pairs, CASE.store, repeats="identical")


@settings(max_examples=40)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.data())
def test_what_counts_is_the_mask(index, data):
    """Any order and number of repeats, any way of writing: the masks decide."""
    wrong = data.draw(st.integers(0, len(index)))
    pairs = []
    for row, k in enumerate(index):
        mask = other(CASE.masks[k]) if row == wrong else CASE.masks[k]
        ends = rle.run_ends(mask)
        runs = np.diff(ends, prepend=0).tolist()
        if data.draw(st.booleans()):
            # A run is cut in two by one of no pixels.
            at = data.draw(st.integers(0, len(runs) - 1))
            first = data.draw(st.integers(0, runs[at]))
            runs[at : at + 1] = [first, 0, runs[at] - first]
        pairs.append((k, {"size": list(mask.shape), "counts": runs}))
    options = {"missing": "zero", "repeats": "identical"}
    if wrong < len(index) and index.count(index[wrong]) > 1:
        with pytest.raises(rc.PredictionError):
            rc.score(pairs, CASE.store, **options)
        return
    result = rc.score(pairs, CASE.store, **options)
    assert result.info["predictions"]["n_repeated"] == len(index) - len(set(index))
    for k in set(index) - {index[wrong] if wrong < len(index) else -1}:
        assert result.per_example["intersection"][k].as_py() == CASE.expected[k, 0]


def test_the_command_says_how_many(tmp_path, capsys):
    files = rank_files(tmp_path, "jsonl", 3, CASE.masks[2])
    words = ["dataset=sample", "repeats=identical"]
    assert main(["score", *map(str, files), *words]) == 0
    assert "3 predictions that repeat the mask of another were left out" in capsys.readouterr().out
    shards = f"[[{files[0]},{files[1]}]]"
    assert main(["sweep", f"predictions={shards}", *words, f"output_dir={tmp_path / 'out'}"]) == 0
    board = json.loads((tmp_path / "out" / "leaderboard.json").read_text())
    assert "repeat the mask" in json.dumps(board)
