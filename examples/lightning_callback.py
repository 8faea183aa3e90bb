"""Lightning: one callback, on any number of devices. `python examples/lightning_callback.py --devices 2`."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import reference_model as ref
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

import refcocom_gpu as rc
from refcocom_gpu.training.lightning import RefCOCOMCallback


class Module(LightningModule):
    """The reference model; it knows nothing of the score."""

    def __init__(self, model, n_steps):
        super().__init__()
        self.model, self.n_steps = model, n_steps

    def training_step(self, batch, batch_idx):
        """Return the loss of a batch."""
        return self.model(**batch)["loss"]

    def validation_step(self, batch, batch_idx):
        """Return the logits; `index` is in the batch."""
        return {"preds": self.model(**batch)["logits"]}

    def configure_optimizers(self):
        """Return the optimizer and its schedule."""
        optimizer, schedule = ref.make_optimizer(self.model, self.n_steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def on_validation_epoch_end(self):
        """Print the score, which the callback has already logged."""
        if self.trainer.is_global_zero and not self.trainer.sanity_checking:
            print(
                f"epoch {self.current_epoch}: mIoU {self.trainer.callback_metrics['refcocom/miou']:.4f}"
            )


def main() -> int:
    """Train, and compare the last epoch's score with that of its saved predictions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--images", type=int, default=100, help="training scenes")
    parser.add_argument("--devices", type=int, default=1)
    args = parser.parse_args()
    # Lightning starts the other processes with the same command, so they read the folder from the environment.
    saved = Path(os.environ.setdefault("EXAMPLE_SAVED", tempfile.mkdtemp()))

    training = ref.training_set(args.images)
    store = rc.MaskStore.build(rc.load_dataset("sample"))
    metric = rc.RefCOCOMMetric(store, save_predictions=saved)
    train = DataLoader(training, ref.BATCH_SIZE, shuffle=True)
    trainer = Trainer(
        max_epochs=args.epochs,
        accelerator="auto",
        devices=args.devices,
        callbacks=[RefCOCOMCallback(metric)],
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(
        Module(ref.make_model(training.vocabulary), args.epochs * len(train)),
        train,
        DataLoader(ref.validation_set(training.vocabulary), ref.BATCH_SIZE, collate_fn=rc.collate),
    )
    trainer.strategy.barrier()  # until every rank has written its file
    if not trainer.is_global_zero:
        return 0
    hook = trainer.callback_metrics["refcocom/miou"].item()
    offline = rc.score(saved / f"epoch-{args.epochs - 1:05}" / "*.parquet", store).miou
    return ref.report(hook, offline)


if __name__ == "__main__":
    sys.exit(main())
