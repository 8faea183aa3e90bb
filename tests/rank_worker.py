"""What each process of the tests of several ranks runs: scenarios of a validation loop, their outcomes to a file."""

import datetime
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from torchmetrics import MeanMetric, MetricCollection, SumMetric

import refcocom_gpu as rc
from refcocom_gpu.training import base

CELLS = 24


def make_store(folder):
    return rc.MaskStore.build(rc.load_dataset("sample"), cache=Path(folder) / "cache")


def make_logits(store, kind=torch.float32):
    """[N, h, w] imperfect logits, the same in every process."""
    generator = torch.Generator().manual_seed(11)
    fields = [
        torch.nn.functional.interpolate(
            torch.from_numpy(store.mask(k))[None, None] * 6.0 - 3, (CELLS, CELLS), mode="area"
        )[0, 0]
        for k in range(len(store))
    ]
    noise = torch.randn(len(store), CELLS, CELLS, generator=generator)
    return (torch.stack(fields) + noise).to(kind)


def make_labels(n):
    """[N] scores of which those above 0.5 reject, the same in every process."""
    return np.random.default_rng(12).random(n)


class Uneven(torch.utils.data.Sampler):
    """Shards of differing length: no padding, nothing for the last of several ranks."""

    def __init__(self, n, rank, ranks, seed):
        order = np.random.default_rng(seed).permutation(n)
        holders = max(1, ranks - 1)
        bounds = [
            0,
            *(n * (k + 1) * (k + 2) // (holders * (holders + 1)) for k in range(holders)),
            n,
        ]
        self.own = order[bounds[rank] : bounds[rank + 1]].tolist()

    def __iter__(self):
        return iter(self.own)

    def __len__(self):
        return len(self.own)


class Repeating(Uneven):
    """Every rank also sees the first sixty examples, some of them twice."""

    def __init__(self, n, rank, ranks, seed):
        super().__init__(n, rank, ranks, seed)
        self.own = [*range(10), *range(60), *self.own]


def padded(n, rank, ranks, seed):
    return DistributedSampler(range(n), ranks, rank, shuffle=False)


def shuffled(n, rank, ranks, seed):
    sampler = DistributedSampler(range(n), ranks, rank, shuffle=True, seed=seed)
    sampler.set_epoch(3)
    return sampler


def dropping(n, rank, ranks, seed):
    return DistributedSampler(range(n), ranks, rank, shuffle=False, drop_last=True)


SAMPLERS = {
    "padded": padded,
    "shuffled": shuffled,
    "uneven": Uneven,
    "repeating": Repeating,
}


def epoch(metric, logits, sampler, batch_size):
    dataset = TensorDataset(logits, torch.arange(len(logits)))
    for batch, index in DataLoader(dataset, batch_size=batch_size, sampler=sampler):
        metric.update(batch, index)
    return metric


def outcome(metric):
    found = {
        key: value.item().hex() if value.is_floating_point() else value.item()
        for key, value in metric.compute().items()
    }
    table = metric.result().per_example
    names = (
        "intersection",
        "pred_area",
        *table.column_names[table.column_names.index("iou") + 1 :],
    )
    counts = [table[name].to_pylist() for name in names]
    return {"scores": found, "counts": counts}


def naive(store, sampler, iou):
    """A plain sum and count under the same sampler: what most validation loops do."""
    total, count = SumMetric(), SumMetric()
    mean = MeanMetric()
    for index in sampler:
        total.update(float(iou[index]))
        count.update(1)
        mean.update(float(iou[index]))
    return (total.compute() / count.compute()).item(), int(count.compute())


def singles(store, logits, sampler):
    """Scores that are metrics of their own, alone and in a collection, and how often counts were exchanged for them."""
    metric = rc.RefCOCOMMetric(store)
    collection = MetricCollection({"miou": metric["miou"], "ciou": metric["ciou"]})
    exchanged = []
    gather = base.gather

    def counting(tensor, group=None):
        exchanged.append(tensor.ndim)
        return gather(tensor, group)

    base.gather = counting
    try:
        found = []
        for _ in range(2):
            # The first part, which is not whole on one rank or on all, then the rest.
            epoch(collection, logits, sampler.own[::2], 16)
            metric.partial = True
            found.append([metric[name].compute().item().hex() for name in ("miou", "ciou")])
            epoch(collection, logits, sampler.own[1::2], 16)
            metric.partial = False
            scores = collection.compute()
            found.append([scores[name].item().hex() for name in ("miou", "ciou")])
            collection.reset()
    finally:
        base.gather = gather
    return {"scores": found, "exchanged": exchanged}


def scenarios(rank, ranks, folder):
    store = make_store(folder)
    n = len(store)
    results = {}
    for kind in (torch.float32, torch.bfloat16):
        logits = make_logits(store, kind)
        for name, make in SAMPLERS.items():
            for batch_size in (1, 8) if kind == torch.float32 and name == "padded" else (16,):
                sampler = make(n, rank, ranks, seed=batch_size)
                metric = epoch(rc.RefCOCOMMetric(store), logits, sampler, batch_size)
                results[f"{name} {kind} {batch_size}"] = outcome(metric)
                # The local state is back: more of the epoch may follow.
                assert int((metric.counts[:-1, 0] >= 0).sum()) == len(set(sampler))
    logits = make_logits(store)
    offline = rc.score([(range(n), logits)], store)
    sampler = SAMPLERS["repeating"](n, rank, ranks, seed=1)
    results["boundary"] = outcome(
        epoch(rc.RefCOCOMMetric(store, metrics="boundary"), logits, sampler, 16)
    )
    labels = make_labels(n)
    metric = rc.RefCOCOMMetric(store, no_target_threshold=0.5)
    for index in np.array_split(np.array([*sampler]), 5):
        metric.update(logits[index], index, no_target=labels[index])
    results["labels"] = outcome(metric)
    results["naive"] = naive(store, padded(n, rank, ranks, 0), offline.iou)

    results["single"] = singles(store, logits, Uneven(n, rank, ranks, 3))

    dropped = epoch(rc.RefCOCOMMetric(store), logits, dropping(n, rank, ranks, 0), 16)
    try:
        dropped.compute()
        results["dropping"] = "whole"
    except rc.PredictionError as error:
        results["dropping"] = error.counts["missing"]
    # After an error, too, the local state is back, and the rest of the epoch completes it.
    # A rank without a batch since then does not answer from a cache while the others wait.
    if rank == 0:
        dropped.update(logits[n - n % ranks :], range(n - n % ranks, n))
    results["completed"] = outcome(dropped)

    saving = rc.RefCOCOMMetric(store, save_predictions=Path(folder) / "saved")
    epoch(saving, logits, padded(n, rank, ranks, 0), 16)
    results["saving"] = outcome(saving)
    saving.reset()
    epoch(saving, logits, Repeating(n, rank, ranks, 1), 16)
    results["saving again"] = outcome(saving)

    # An epoch in which the last rank has nothing, then one in which ranks differ on some examples.
    idle = rc.RefCOCOMMetric(store, save_predictions=Path(folder) / "idle", partial=True)
    if rank == 0:
        idle.update(-logits, range(n))
    idle.compute()
    idle.reset()
    epoch(idle, logits, Uneven(n, rank, ranks, 5), 16)
    # On one rank, an example that comes again with another mask would be an error.
    new = [k for k in range(20) if idle.counts[k, 0] < 0]
    idle.update(logits[new] if rank == 0 else -logits[new], new)
    idle.partial = False
    found = idle.compute()
    results["idle"] = [found["refcocom/miou"].item().hex(), found["refcocom/n_conflicting"].item()]

    other = rc.RefCOCOMMetric(
        store, values="logits" if rank == 0 else "probabilities", partial=True
    )
    try:
        other.compute()
        results["different"] = "no error"
    except rc.SyncError as error:
        results["different"] = str(error)
    behind = rc.RefCOCOMMetric(store, partial=True)
    behind._n_syncs += rank
    try:
        behind.compute()
        results["out of step"] = "no error"
    except rc.SyncError as error:
        results["out of step"] = str(error)
    return results


def gone(rank, ranks, folder, how):
    """The last rank leaves, or stays away from `compute`; what the others are told, and when."""
    store = make_store(folder)
    metric = rc.RefCOCOMMetric(store, partial=True)
    dist.barrier()
    if rank == ranks - 1:
        if how == "leaves":
            return None
        # Until the others have given up.
        others = [Path(folder, f"rank-{other}.json") for other in range(rank)]
        until = time.monotonic() + 60
        while time.monotonic() < until and not all(path.exists() for path in others):
            time.sleep(0.1)
        return None
    start = time.monotonic()
    try:
        metric.compute()
        said = "no error"
    except rc.SyncError as error:
        said = str(error)
    return {"said": said, "seconds": math.ceil(time.monotonic() - start)}


def work(rank, ranks, folder, task, *arguments):
    torch.set_num_threads(1)
    timeout = 4 if task == "gone" else 120
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=ranks,
        timeout=datetime.timedelta(seconds=timeout),
    )
    found = {"scenarios": scenarios, "gone": gone}[task](rank, ranks, folder, *arguments)
    Path(folder, f"rank-{rank}.json").write_text(json.dumps(found))
    if task == "scenarios":
        dist.destroy_process_group()
