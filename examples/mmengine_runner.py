"""mmengine: one entry of the config. `python examples/mmengine_runner.py`."""

import argparse
import sys
import tempfile
from pathlib import Path

import reference_model as ref
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import DataLoader

import refcocom_gpu as rc
import refcocom_gpu.training.mmengine  # registers RefCOCOMEvaluator


class Model(BaseModel):
    """The reference model as mmengine calls it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, mode="predict", **batch):
        """Return the loss, or a data sample per example."""
        outputs = self.model(**batch)
        if mode == "loss":
            return {"loss": outputs["loss"]}
        return [
            {"preds": logits, "index": int(index)}
            for logits, index in zip(outputs["logits"], batch["index"], strict=True)
        ]


def main() -> int:
    """Train, and compare the last epoch's score with that of its saved predictions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--images", type=int, default=100, help="training scenes")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp())

    training = ref.training_set(args.images)
    runner = Runner(
        model=Model(ref.make_model(training.vocabulary)),
        work_dir=str(folder / "work"),
        train_dataloader=DataLoader(training, ref.BATCH_SIZE, shuffle=True),
        train_cfg={"by_epoch": True, "max_epochs": args.epochs, "val_interval": 1},
        optim_wrapper={"optimizer": {"type": "AdamW", "lr": 2e-3}},
        val_dataloader=DataLoader(
            ref.validation_set(training.vocabulary), ref.BATCH_SIZE, collate_fn=rc.collate
        ),
        val_cfg={},
        val_evaluator={
            "type": "RefCOCOMEvaluator",
            "dataset": "sample",
            "save_predictions": folder / "saved",
        },
        default_hooks={"checkpoint": None, "logger": {"type": "LoggerHook", "interval": 10**6}},
        log_level="WARNING",
    )
    runner.train()
    # mmengine keeps the scores of every epoch.
    history = runner.message_hub.get_scalar("val/refcocom/miou").data[0].tolist()
    for epoch, miou in enumerate(history):
        print(f"epoch {epoch}: mIoU {miou:.4f}")
    store = rc.MaskStore.build(rc.load_dataset("sample"))
    offline = rc.score(folder / "saved" / f"epoch-{args.epochs - 1:05}" / "*.parquet", store).miou
    return ref.report(history[-1], offline)


if __name__ == "__main__":
    sys.exit(main())
