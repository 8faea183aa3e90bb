"""Engines: every item once, bounded in flight, errors where they belong; sweeps that are the same on all."""

import os
import pickle
import threading
import warnings

import numpy as np
import pytest
from helpers import sample_case
from sweeps import contents, made_runs, quiet_ray, sweep

import refcocom_gpu as rc
from refcocom_gpu.engines import make_engine
from refcocom_gpu.engines.engine import Lost


def double(shared, item):
    return item, shared * item


def warn_of(_, item):
    warnings.warn(f"item {item}", UserWarning, stacklevel=1)
    return item


def fail_at_three(_, item):
    if item == 3:
        raise rc.UsageError("three")
    return item


def shared_facts(shared, _):
    """Whether the arrays are seen in place, and which object this process unpacked."""
    return id(shared), shared.ends.flags.owndata, shared.ends.flags.writeable, shared.folder


def die_at_three(_, item):
    if item == 3:
        os._exit(1)
    return item


@quiet_ray
@pytest.mark.parametrize("n", [0, 1, 50])
def test_every_item_once(engine, n):
    found = list(engine.map(double, iter(range(n)), 7))
    assert sorted(found) == [(k, 7 * k) for k in range(n)]


@quiet_ray
def test_items_are_taken_as_workers_get_free(engine):
    taken = []

    def items():
        for k in range(100):
            taken.append(k)
            yield k

    results = engine.map(double, items(), 1)
    for done, _ in enumerate(results, 1):
        assert len(taken) <= done + 4
        if done == 20:
            break
    results.close()
    assert len(taken) <= 24


@quiet_ray
def test_an_error_of_a_task_is_the_callers(engine):
    with pytest.raises(rc.UsageError, match="three"):
        list(engine.map(fail_at_three, range(9), None))


def test_warnings_reach_the_caller(engine):
    with pytest.warns(UserWarning, match="item 1"):
        assert list(engine.map(warn_of, [1], None)) == [1]


def test_threads_work_at_once():
    together = threading.Barrier(2, timeout=20)
    assert len(list(make_engine("threads", 2).map(lambda *_: together.wait(), range(4), None))) == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("slurm",), "engine must be serial, threads, ray, not 'slurm'"),
        (("threads", -1), "engine.workers must be 0"),
        (("threads", 0, "auto"), "engine.address is for engine=ray"),
    ],
)
def test_wrong_engines(words, said):
    with pytest.raises(rc.UsageError, match=said):
        make_engine(*words)


def test_ray_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(rc.UsageError, match=r"pip install 'refcocom-gpu\[ray\]'"):
        make_engine("ray")


@quiet_ray
def test_ray_sees_the_store_in_place_and_unpacks_it_once(ray_engine):
    store = sample_case().store.detached()
    facts = set(ray_engine.map(shared_facts, range(20), store))
    # One object per worker process; the arrays belong to Ray's memory and cannot be written.
    assert len({fact[0] for fact in facts}) <= 2
    assert {fact[1:] for fact in facts} == {(False, False, None)}


@quiet_ray
def test_ray_gives_a_device_of_its_own(ray_engine):
    assert ray_engine.device("auto") == ray_engine.device("cpu") == "cpu"
    with pytest.raises(rc.UsageError, match="no node of the Ray cluster has a GPU"):
        ray_engine.device("cuda")
    with pytest.raises(rc.UsageError, match="gives each worker its GPU, not 'cuda:1'"):
        ray_engine.device("cuda:1")


@quiet_ray
def test_an_item_that_kills_its_workers_is_lost_alone(ray_engine, monkeypatch):
    monkeypatch.setattr("refcocom_gpu.engines.ray.RETRIES", 1)
    found = list(ray_engine.map(die_at_three, range(6), None))
    lost = [outcome for outcome in found if isinstance(outcome, Lost)]
    assert [outcome.item for outcome in lost] == [3]
    assert sorted(outcome for outcome in found if not isinstance(outcome, Lost)) == [0, 1, 2, 4, 5]


def test_a_detached_store_carries_its_arrays(tmp_path):
    store = rc.MaskStore.build(rc.load_dataset("sample"), cache=tmp_path)
    store.pack()
    alone = pickle.loads(pickle.dumps(store.detached()))
    for file in tmp_path.rglob("*.safetensors"):
        file.unlink()
    assert np.array_equal(alone.ends, store.ends)
    assert np.array_equal(alone.words, store.words)
    assert not list(tmp_path.rglob("*.safetensors"))


@quiet_ray
def test_a_sweep_is_the_same_on_every_engine(engine, tmp_path):
    files = made_runs(tmp_path / "runs", 8)
    serial = sweep(files, tmp_path / "serial", engine=make_engine("serial"))
    outcome = sweep(files, tmp_path / "out", engine=engine)
    assert (outcome.n_scored, outcome.n_failed) == (8, 0)
    for mine, theirs in zip(outcome.results, serial.results, strict=True):
        assert np.array_equal(mine.counts, theirs.counts)
    assert contents(tmp_path / "out") == contents(tmp_path / "serial")
    # A broken file is an error row everywhere.
    (tmp_path / "broken.jsonl").write_text("{}")
    outcome = sweep([*files, tmp_path / "broken.jsonl"], tmp_path / "out", engine=engine)
    assert (outcome.n_scored, outcome.n_failed) == (0, 1)
    assert "broken.jsonl, line 1" in outcome.results[-1].error


@quiet_ray
def test_masks_and_logits_on_every_engine(engine, tmp_path):
    """What is counted against packed bits, which travel with the store."""
    case = sample_case()
    masks = dict(zip(case.names(), case.masks, strict=True))
    np.savez(tmp_path / "masks.npz", **masks)
    np.savez(tmp_path / "logits.npz", **{k: np.float32(m) * 2 - 1 for k, m in masks.items()})
    outcome = sweep(
        [tmp_path / "masks.npz", tmp_path / "logits.npz"], tmp_path / "out", engine=engine
    )
    for result in outcome.results:
        assert result.error is None
        assert np.array_equal(result.counts, case.expected)
