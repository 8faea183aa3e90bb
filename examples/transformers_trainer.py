"""Transformers' Trainer: two functions. `torchrun --nproc-per-node 2 examples/transformers_trainer.py` works too."""

import argparse
import sys
import tempfile
from pathlib import Path

import reference_model as ref
import torch
import torch.nn.functional as F
from transformers import Trainer, TrainingArguments

import refcocom_gpu as rc
from refcocom_gpu.training.transformers import TrainerHook

KEY = "eval_refcocom/miou"


class Collator:
    """The collator of training and validation; validation gets true masks too, because the trainer wants a loss."""

    def __init__(self, store):
        self.store = store

    def __call__(self, items):
        """Make a batch; training items hold their masks, validation items their index."""
        if "index" not in items[0]:
            return torch.utils.data.default_collate(items)
        batch = rc.collate(items)
        masks = [torch.from_numpy(self.store.mask(int(k))) for k in batch["index"]]
        labels = [
            F.interpolate(mask[None, None].float(), (ref.SIDE, ref.SIDE))[0] for mask in masks
        ]
        return {**batch, "labels": torch.stack(labels)}


def main() -> int:
    """Train, and compare the trainer's score with that of predictions written afterwards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--images", type=int, default=100, help="training scenes")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp())

    training = ref.training_set(args.images)
    validation = ref.validation_set(training.vocabulary)
    store = rc.MaskStore.build(rc.load_dataset("sample"))
    model = ref.make_model(training.vocabulary)
    hook = TrainerHook(store)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=args.epochs,
            per_device_train_batch_size=ref.BATCH_SIZE,
            per_device_eval_batch_size=ref.BATCH_SIZE,
            eval_strategy="epoch",
            # The trainer passes the last of these to the hook.
            label_names=["index"],
            save_strategy="no",
            report_to=[],
            # Without it, processes on CPUs would not form a group.
            use_cpu=not torch.cuda.is_available(),
            disable_tqdm=True,
        ),
        train_dataset=training,
        eval_dataset=validation,
        data_collator=Collator(store),
        optimizers=ref.make_optimizer(model, args.epochs * (len(training) // ref.BATCH_SIZE + 1)),
        preprocess_logits_for_metrics=hook.preprocess_logits_for_metrics,
        compute_metrics=hook.compute_metrics,
    )
    trainer.train()
    history = [entry[KEY] for entry in trainer.state.log_history if KEY in entry]
    if not trainer.is_world_process_zero():
        return 0
    for epoch, miou in enumerate(history):
        print(f"epoch {epoch}: mIoU {miou:.4f}")

    model.eval()
    with rc.PredictionWriter(folder / "preds.parquet", store.dataset) as writer, torch.no_grad():
        for first in range(0, len(validation), ref.BATCH_SIZE):
            last = min(first + ref.BATCH_SIZE, len(validation))
            batch = rc.collate([validation[k] for k in range(first, last)])
            batch = {key: value.to(trainer.args.device) for key, value in batch.items()}
            writer.write(batch["index"], model(**batch)["logits"])
    offline = rc.score(folder / "preds.parquet", store).miou
    return ref.report(history[-1], offline)


if __name__ == "__main__":
    sys.exit(main())
