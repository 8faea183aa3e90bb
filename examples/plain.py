"""A plain PyTorch loop with RefCOCO-M's scores after each epoch, in one process or in several.

`python examples/plain.py`, or `torchrun --nproc-per-node 2 examples/plain.py`.
The scores need only the lines marked `hook`.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import reference_model as ref
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import refcocom_gpu as rc


def rank_and_ranks() -> tuple[int, int]:
    """Return the number of this process and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def parallel(model: nn.Module) -> nn.Module:
    """Move the model to this process's device; under torchrun, make it one of several replicas."""
    cuda = torch.cuda.is_available()
    device = (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    )
    if cuda:
        torch.cuda.set_device(device)
    model = model.to(device)
    if "WORLD_SIZE" not in os.environ:
        return model
    dist.init_process_group("nccl" if cuda else "gloo")
    # Replicas have equal weights but mirror different pictures.
    torch.manual_seed(torch.initial_seed() + dist.get_rank())
    return DistributedDataParallel(model, device_ids=[device] if cuda else None)


def train(model: nn.Module, data: Dataset, epochs: int) -> Iterator[float]:
    """Train one epoch at a time, and yield its mean loss."""
    rank, ranks = rank_and_ranks()
    sampler = DistributedSampler(data, ranks, rank, shuffle=True)
    loader = DataLoader(data, max(1, ref.BATCH_SIZE // ranks), sampler=sampler)
    optimizer, schedule = ref.make_optimizer(model, epochs * len(loader))
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        yield ref.train_epoch(model, loader, optimizer, schedule)


def validation_loader(examples: rc.ExpressionDataset) -> DataLoader:
    """Load this rank's share of the examples; some are repeated so that all ranks have equally many."""
    sampler = DistributedSampler(examples, *reversed(rank_and_ranks()), shuffle=False)
    return DataLoader(examples, 32, sampler=sampler, collate_fn=rc.collate)  # hook


def validate(model: nn.Module, loader: DataLoader, metric: rc.RefCOCOMMetric) -> dict[str, Tensor]:
    """Return the scores of all ranks together."""
    model.eval()
    device = next(model.parameters()).device
    for batch in loader:
        with torch.inference_mode():
            logits = model(batch["image"].to(device), batch["words"].to(device))["logits"]
        metric.update(logits, batch["index"])  # hook
    scores = metric.compute()  # hook
    metric.reset()  # hook
    return scores


@contextmanager
def shared_folder() -> Iterator[Path]:
    """Make a temporary folder that all processes of this machine share."""
    rank, ranks = rank_and_ranks()
    with tempfile.TemporaryDirectory() if rank == 0 else nullcontext() as name:
        names = [name]
        if ranks > 1:
            dist.broadcast_object_list(names)
        yield Path(names[0])
        if ranks > 1:
            dist.barrier()


def check_saved(folder: Path, store: rc.MaskStore, scores: dict[str, Tensor]) -> None:
    """Score the saved predictions of the last epoch; the score equals the hook's to the last bit."""
    rank, ranks = rank_and_ranks()
    if ranks > 1:
        dist.barrier()  # until every rank has written its file
    if rank == 0:
        last = max(folder.glob("epoch-*"))
        offline = rc.score(sorted(last.glob("*.parquet")), store).miou
        if ref.report(scores["refcocom/miou"].item(), offline):
            sys.exit("the two differ")


def main() -> None:
    """Train and validate, then score the saved predictions of the last epoch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=ref.EPOCHS)
    parser.add_argument("--images", type=int, default=ref.N_IMAGES, help="training scenes")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    data = ref.training_set(args.images)
    model = parallel(ref.make_model(data.vocabulary, args.seed))
    loader = validation_loader(ref.validation_set(data.vocabulary))
    store = rc.MaskStore.build(rc.load_dataset("sample"))
    with shared_folder() as folder:
        metric = rc.RefCOCOMMetric(store, save_predictions=folder)  # hook
        metric.to(next(model.parameters()).device)
        for epoch, loss in enumerate(train(model, data, args.epochs)):
            scores = validate(model, loader, metric)
            if rank_and_ranks()[0] == 0:
                print(
                    f"epoch {epoch}: loss {loss:.3f}, mIoU {scores['refcocom/miou']:.3f}",
                    flush=True,
                )
        check_saved(folder, store, scores)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
