"""Train and plot mIoU by epoch, of all examples and estimated from 100 of them. Writes `docs/training.png`."""

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
"""An estimate lies within this many standard errors of the score in 95 % of draws."""


def collect(epochs: int, n_images: int, seed: int) -> list[tuple[float, float, float]]:
    """Return mIoU, its estimate from the subset, and the estimate's standard error, after each epoch."""
    data = ref.training_set(n_images)
    model = ref.make_model(data.vocabulary, seed)
    store = rc.MaskStore.build(rc.load_dataset("sample"))
    all_examples = plain.validation_loader(ref.validation_set(data.vocabulary))
    subset = plain.validation_loader(ref.validation_set(data.vocabulary, **SUBSET))
    metric, estimate = rc.RefCOCOMMetric(store), rc.RefCOCOMMetric(store, **SUBSET)
    curves = []
    for epoch, loss in enumerate(plain.train(model, data, epochs)):
        scores = plain.validate(model, all_examples, metric)
        scores |= plain.validate(model, subset, estimate)
        names = ("refcocom/miou", "refcocom_estimate/miou", "refcocom_estimate/miou_se")
        miou, estimated, se = (scores[name].item() for name in names)
        curves.append((miou, estimated, se))
        print(
            f"epoch {epoch}: loss {loss:.3f}, mIoU {miou:.3f}, estimate {estimated:.3f} ± {CONFIDENCE * se:.3f}",
            flush=True,
        )
    return curves


def plot(curves: list[tuple[float, float, float]], path: Path) -> None:
    """Draw the two curves."""
    miou, estimated, se = zip(*curves, strict=True)
    epochs = range(1, len(curves) + 1)
    mpl.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    bars = [CONFIDENCE * error for error in se]
    axes.plot(epochs, miou, "o-", color="#1f4e8c", linewidth=2, markersize=5)
    # Shifted, so that the estimate does not cover the full value.
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
