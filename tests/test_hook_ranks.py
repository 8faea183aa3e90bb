"""One to four processes: the counts of one, whatever the sampler; a rank that is gone is an error and no hang."""

import json
import multiprocessing

import pytest
import rank_worker
import torch
import torch.multiprocessing as mp

import refcocom_gpu as rc


def run(ranks, folder, task, *arguments):
    # One server imports torch and the hook, which takes longer than the scenarios; every rank is forked from it.
    multiprocessing.set_forkserver_preload(["refcocom_gpu.training.metric"])
    mp.start_processes(
        rank_worker.work, (ranks, str(folder), task, *arguments), ranks, start_method="forkserver"
    )
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(ranks)]


@pytest.fixture(scope="module", params=[1, 2, 3, 4])
def world(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"ranks-{request.param}")
    return folder, run(request.param, folder, "scenarios")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return rank_worker.make_store(tmp_path_factory.mktemp("offline"))


@pytest.fixture(scope="module")
def offline(store):
    """The result of one process for each kind of logits."""
    return {
        kind: rc.score([(range(len(store)), rank_worker.make_logits(store, kind))], store)
        for kind in (torch.float32, torch.bfloat16)
    }


def is_offline(found, offline):
    table = offline.per_example
    assert found["counts"] == [table[name].to_pylist() for name in ("intersection", "pred_area")]
    assert found["scores"]["refcocom/miou"] == offline.miou.hex()
    assert found["scores"]["refcocom/ciou"] == offline.ciou.hex()
    assert found["scores"]["refcocom/n_examples"] == offline.n_examples
    assert found["scores"]["refcocom/n_conflicting"] == 0


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_counts_and_scores_are_those_of_one_process(world, offline, kind):
    _, results = world
    names = [name for name in results[0] if f" {kind} " in name]
    assert len(names) == (5 if kind == torch.float32 else 4)
    for found in results:
        for name in names:
            is_offline(found[name], offline[kind])


def test_boundaries_are_those_of_one_process(world, store):
    _, results = world
    logits = rank_worker.make_logits(store)
    offline = rc.score([(range(len(store)), logits)], store, metrics=["iou", "boundary"])
    names = ("intersection", "pred_area", *offline.per_example.column_names[-7:])
    for found in results:
        counts, scores = found["boundary"]["counts"], found["boundary"]["scores"]
        assert counts == [offline.per_example[name].to_pylist() for name in names]
        for name, score in offline.boundary_scores.items():
            assert scores[f"refcocom/{name}"] == score.hex()


def test_labels_are_those_of_one_process(world, store):
    _, results = world
    n = len(store)
    pairs = [(range(n), rank_worker.make_logits(store), rank_worker.make_labels(n))]
    offline = rc.score(pairs, store, no_target_threshold=0.5)
    names = ("intersection", "pred_area", "pred_no_target")
    for found in results:
        counts = [offline.per_example[name].to_pylist() for name in names]
        assert found["labels"]["counts"] == counts
        assert found["labels"]["scores"]["refcocom/miou"] == offline.miou.hex()
        assert found["labels"]["scores"]["refcocom/n_conflicting"] == 0


def test_a_plain_mean_is_wrong_where_the_sampler_pads(world, store, offline):
    _, results = world
    for found in results:
        mean, count = found["naive"]
        n_padding = -len(store) % len(results)
        assert count == len(store) + n_padding
        # Right but for float32 without padding; with it, wrong by more than rounding explains.
        assert (abs(mean - offline[torch.float32].miou) > 1e-5) == (n_padding > 0)
        is_offline(found["padded torch.float32 8"], offline[torch.float32])


def test_a_sampler_that_drops_is_an_error_on_every_rank(world, store, offline):
    _, results = world
    dropped = len(store) % len(results)
    for found in results:
        assert found["dropping"] == (dropped or "whole")
        is_offline(found["completed"], offline[torch.float32])


def test_single_scores_are_those_of_one_process_after_one_exchange(world, offline):
    _, results = world
    scores = offline[torch.float32]
    whole = [scores.miou.hex(), scores.ciou.hex()]
    for found in results:
        first, second, *again = found["single"]["scores"]
        assert first != second == whole
        assert again == [first, second]
        assert found["single"] == results[0]["single"]
        # For each pair of scores the headers twice, the counts once.
        assert found["single"]["exchanged"] == [1, 2, 1] * 4


def test_saved_predictions_are_scored_offline(world, store):
    folder, results = world
    for epoch, name in enumerate(("saving", "saving again")):
        files = sorted((folder / "saved" / f"epoch-{epoch:05}").glob("*.parquet"))
        # A rank without a batch has no file.
        assert [file.name for file in files] == [
            f"rank-{rank:05}-of-{len(results):05}.parquet" for rank in range(len(results))
        ]
        offline = rc.score(files, store)
        for found in results:
            is_offline(found[name], offline)


def test_epochs_are_counted_alike_and_files_hold_what_was_kept(world, store):
    folder, results = world
    offline = rc.score(folder / "idle" / "epoch-00001" / "*.parquet", store)
    with pytest.warns(UserWarning, match="fit better inverted"):
        inverted = rc.score(folder / "idle" / "epoch-00000" / "*.parquet", store)
    assert inverted.miou != offline.miou
    for found in results:
        assert found["idle"][0] == offline.miou.hex()
        assert (found["idle"][1] > 0) == (len(results) > 1)


def test_ranks_that_score_something_else_are_named(world):
    _, results = world
    for found in results:
        if len(results) == 1:
            assert found["different"] == found["out of step"] == "no error"
        else:
            assert "another dataset or other options than rank 0" in found["different"]
            said = ", ".join(str(k + 1) for k in range(len(results)))
            assert (
                f"out of step: by rank, compute() was called {said} times" in found["out of step"]
            )


@pytest.mark.parametrize("how", ["leaves", "stays away"])
def test_a_rank_that_is_gone_is_named_in_time(tmp_path, how):
    results = run(3, tmp_path, "gone", how)
    for rank, found in enumerate(results[:2]):
        assert f"rank {rank} of 3 could not gather the counts" in found["said"]
        # The process group's timeout is 4 s.
        assert found["seconds"] < 18
    assert "2" in results[0]["said"].split("timeout.")[1]
