"""Several masks for one expression, at every entrance: refused, joined, or the best of them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers import coco_encode, problems_of, sample_case, write_jsonl

import refcocom_gpu as rc

CASE = sample_case()
N = len(CASE.masks)
PARTS = [
    [np.where(np.arange(mask.shape[1]) % 2 == k, mask, False) for k in range(2)]
    for mask in CASE.masks
]
"""Two masks of each example whose union is the predicted one."""


def keyed(index, segmentation):
    sample_id, sentence_idx = CASE.dataset.key_of(index)
    return {"sample_id": sample_id, "sentence_idx": sentence_idx, "segmentation": segmentation}


def as_lists(scored):
    """For each example its masks as RLE; with scores, the first of three is the best and the predicted mask."""
    rows = []
    for index, parts in enumerate(PARTS):
        if scored:
            masks = [CASE.masks[index], parts[0], parts[0]]
            entries = [
                {**coco_encode(m), "score": s} for m, s in zip(masks, (0.9, 0.2, 0.9), strict=True)
            ]
        else:
            entries = [coco_encode(part) for part in parts]
        rows.append(keyed(index, entries))
    return rows


def files(folder, scored):
    rows = as_lists(scored)
    yield write_jsonl(folder / "p.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), folder / "p.parquet")
    yield folder / "p.parquet"


def arrays(scored):
    """What is in memory: stacks, lists of RLE, lists of a mask and its score."""
    if scored:
        return [[(CASE.masks[k], 0.9), (PARTS[k][0], 0.2), (PARTS[k][0], 0.9)] for k in range(N)]
    return [
        (np.stack(p), torch.from_numpy(np.stack(p)), [coco_encode(x) for x in p])[k % 3]
        for k, p in enumerate(PARTS)
    ]


@pytest.mark.parametrize("combine", ["union", "best"])
def test_one_mask_comes_of_several(tmp_path, combine):
    scored = combine == "best"
    for path in files(tmp_path, scored):
        result = CASE.check(path, combine=combine)
        assert result.info["options"]["combine"] == combine
        assert "pass combine=union" in str(problems_of(path, CASE.store))
    given = arrays(scored)
    CASE.check(list(enumerate(given)), combine=combine)
    metric = rc.RefCOCOMMetric(CASE.store, combine=combine)
    metric.update(given, range(N))
    CASE.compare(metric.result())
    with rc.PredictionWriter(tmp_path / "w.jsonl", CASE.dataset, combine=combine) as writer:
        writer.write(range(N), given)
    CASE.check(tmp_path / "w.jsonl")


def test_members_of_an_archive(tmp_path):
    np.savez(tmp_path / "p.npz", **dict(zip(CASE.names(), map(np.stack, PARTS), strict=True)))
    CASE.check(tmp_path / "p.npz", combine="union")
    error = problems_of(tmp_path / "p.npz", CASE.store)
    assert error.counts == {"malformed mask": N}
    assert "2 masks for one expression; pass combine=union" in str(error)


def test_without_declaration_or_scores_they_are_refused(tmp_path):
    pairs = list(enumerate(arrays(False)))
    assert problems_of(pairs, CASE.store).counts == {"malformed mask": N}
    assert "needs a score for each mask" in str(problems_of(pairs, CASE.store, combine="best"))
    with pytest.raises(rc.UsageError, match="pass combine=union"):
        rc.RefCOCOMMetric(CASE.store).update(arrays(False), range(N))
    with pytest.raises(rc.UsageError, match="combine must be union or best"):
        rc.score(pairs, CASE.store, combine="all")


def test_an_empty_list_is_no_empty_mask(tmp_path):
    rows = as_lists(False)
    rows[5]["segmentation"] = []
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    for path in (write_jsonl(tmp_path / "p.jsonl", rows), tmp_path / "p.parquet"):
        error = problems_of(path, CASE.store, combine="union")
        assert error.counts == {"malformed mask": 1}
        assert "null is an explicit empty mask" in str(error)


def test_colours_and_nested_lists_are_no_several_masks():
    picture = np.zeros((*CASE.masks[0].shape, 3), np.uint8)
    error = problems_of([(0, picture)], CASE.store, missing="zero")
    assert "a mask is [H, W], not of shape" in str(error)
    result = rc.score([(0, [CASE.masks[0].tolist()])], CASE.store, missing="zero")
    assert result.per_example["pred_area"][0].as_py() == CASE.expected[0, 1]
