"""The loop under Accelerate, which prepares everything but the hook; the hook needs no adapter.

`python examples/accelerate_loop.py`, or `accelerate launch --num-processes 2 examples/accelerate_loop.py`.
"""

import argparse

import reference_model as ref
import torch
from accelerate import Accelerator
from plain import check_saved, shared_folder
from torch.utils.data import DataLoader

import refcocom_gpu as rc


def main() -> None:
    """Train and validate, then score the saved predictions of the last epoch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=ref.EPOCHS)
    parser.add_argument("--images", type=int, default=ref.N_IMAGES, help="training scenes")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    # Without `cpu=True`, processes on CPUs would not form a group.
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    data = ref.training_set(args.images)
    model = ref.make_model(data.vocabulary, args.seed)
    torch.manual_seed(
        args.seed + accelerator.process_index
    )  # each process mirrors different pictures
    batch_size = max(1, ref.BATCH_SIZE // accelerator.num_processes)
    loader = DataLoader(data, batch_size, shuffle=True)
    validation = DataLoader(ref.validation_set(data.vocabulary), 32, collate_fn=rc.collate)  # hook
    model, loader, validation = accelerator.prepare(model, loader, validation)
    optimizer, schedule = ref.make_optimizer(model, args.epochs * len(loader))
    optimizer = accelerator.prepare(optimizer)
    store = rc.MaskStore.build(rc.load_dataset("sample"))
    with shared_folder() as folder:
        metric = rc.RefCOCOMMetric(store, save_predictions=folder).to(accelerator.device)  # hook
        for epoch in range(args.epochs):
            loss = ref.train_epoch(model, loader, optimizer, schedule, accelerator.backward)
            model.eval()
            with torch.inference_mode():
                for batch in validation:
                    # Accelerate repeats examples to fill the last batch; the metric counts each once.
                    metric.update(model(**batch)["logits"], batch["index"])  # hook
            scores = metric.compute()  # hook
            metric.reset()  # hook
            if accelerator.is_main_process:
                print(f"epoch {epoch}: loss {loss:.3f}, mIoU {scores['refcocom/miou']:.3f}")
        check_saved(folder, store, scores)
    accelerator.end_training()


if __name__ == "__main__":
    main()
