"""Train, and plot mIoU by epoch: of all examples, and as a subset of 100 estimates it. Writes `docs/training.png`."""

import argparse
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import plain
import reference_model as ref
from matplotlib.ticker import MaxNLocator

import refcocom_gpu as rc

SUBSET = {"subset": 100, "seed": 0}
CONFIDENCE = 1.96
"""Standard errors on either side of an estimate that hold 95 % of its draws."""


def collect(epochs: int, n_images: int, seed: int) -> list[tuple[float, float, float]]:
    """After each epoch: mIoU, the subset's estimate of it, the estimate's standard error."""
    data = ref.training_set(n_images)
    model = ref.make_model(data.vocabulary, seed)
    store = rc.MaskStore.build(rc.load_dataset("sample"))
    everything = plain.validation_loader(ref.validation_set(data.vocabulary))
    some = plain.validation_loader(ref.validation_set(data.vocabulary, **SUBSET))
    metric, estimate = rc.RefCOCOMMetric(store), rc.RefCOCOMMetric(store, **SUBSET)
    found = []
    for epoch, loss in enumerate(plain.train(model, data, epochs)):
        scores = plain.validate(model, everything, metric)
        scores |= plain.validate(model, some, estimate)
        names = ("refcocom/miou", "refcocom_estimate/miou", "refcocom_estimate/miou_se")
        found.append(tuple(scores[name].item() for name in names))
        miou, estimated, se = found[-1]
        print(
            f"epoch {epoch}: loss {loss:.3f}, mIoU {miou:.3f}, estimate {estimated:.3f} ± {CONFIDENCE * se:.3f}",
            flush=True,
        )
    return found


def plot(found: list[tuple[float, float, float]], path: Path) -> None:
    """Draw the two curves."""
    miou, estimated, se = zip(*found, strict=True)
    epochs = range(1, len(found) + 1)
    mpl.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    bars = [CONFIDENCE * one for one in se]
    axes.plot(epochs, miou, "o-", color="#1f4e8c", linewidth=2, markersize=5)
    # Beside the full value, not on it.
    axes.errorbar(
        [epoch + 0.12 for epoch in epochs], estimated, bars, fmt="s", color="#c8571b",
        markersize=4, capsize=3, linewidth=1.2,
    )  # fmt: skip
    beside = {"textcoords": "offset points", "va": "center", "annotation_clip": False}
    axes.annotate("all 297 examples", (epochs[-1], miou[-1]), (16, 8), color="#1f4e8c", **beside)
    axes.annotate(
        "100 of them,\n±1.96 standard errors", (epochs[-1], estimated[-1]), (16, -16),
        color="#c8571b", **beside,
    )  # fmt: skip
    axes.set(xlabel="epoch", ylabel="mIoU on the built-in sample", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, facecolor="white")


def main() -> None:
    """Train, then write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=ref.EPOCHS)
    parser.add_argument("--images", type=int, default=ref.N_IMAGES, help="training scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("docs/training.png"))
    args = parser.parse_args()
    plot(collect(args.epochs, args.images, args.seed), args.output)
    print(f"Wrote {args.output}")


if __name__ == "__main__":
    main()
