"""The built-in sample in, the pictures of README and docs out: `python -m docs.screenshots`, with Chromium."""

import itertools
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

import refcocom_gpu as rc
from benchmarks.construction.simulate import coarsen
from refcocom_gpu.dataset.images import Images
from refcocom_gpu.dataset.sample import make_predictions, make_records
from refcocom_gpu.masks import rle

HERE = Path(__file__).parent
WIDTH, HEIGHT = 1000, 1150
"""Pixels of the window: as wide as a page of the documentation shows, and as high as shows tables and plots."""

MODELS, QUALITIES = ("model-a", "model-b"), ("coarse", "good", "good")
"""Of the sweep: a file of each quality for each model."""


def make_pages(folder: Path) -> dict[str, Path]:
    """Write a page of each kind that the documentation shows, by the name of its picture."""
    store = rc.MaskStore.build(rc.load_dataset("sample"))
    fine, coarse = (
        rc.score(name, store, metrics=["iou", "causes"], save_masks=True)
        for name in ("sample", "sample-coarse")
    )
    comparison = rc.compare(fine, coarse, names=("fine", "coarse"))
    records, rows = make_records(), ["path,model,step"]
    for step, (model, quality) in enumerate(itertools.product(MODELS, QUALITIES)):
        lines = [json.dumps(row) for row in make_predictions(records, quality, step)]
        (folder / f"{step}.jsonl").write_text("\n".join(lines), "utf-8")
        rows.append(f"{step}.jsonl,{model},{1000 * (1 + step % len(QUALITIES))}")
    manifest = folder / "runs.csv"
    manifest.write_text("\n".join(rows), "utf-8")
    board = rc.sweep(None, store, folder / "sweep", manifest=manifest).leaderboard
    return {
        "score": rc.report(fine, folder / "score.html", truth=store),
        "coarse": rc.report(coarse, folder / "coarse.html", truth=store),
        "comparison": rc.report(comparison, folder / "comparison.html", truth=store),
        "leaderboard": rc.report(board, folder / "leaderboard.html"),
    }


def versions_page(folder: Path) -> Path:
    """Write the page of the sample's masks before, made coarse as if they were drawn by hand, and after."""
    rng, records = np.random.default_rng(0), make_records()
    for record in records:
        for sample in record["samples"]:
            sample["bbox"] = None
            sample["mask"] = rle.encode(coarsen(rle.decode(sample["mask"]), rng))
    coarse, images = folder / "coarse.jsonl", folder / "images"
    coarse.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    exact = rc.load_dataset("sample")
    images.mkdir()
    names = exact.images["file_name"].to_pylist()
    for picture, name in zip(Images(exact), names, strict=True):
        picture.save(images / name)
    return rc.report(rc.before_after(coarse, exact), folder / "versions.html", images=images)


def photograph(page: Page, file: Path, picture: Path, order: str | None = None) -> None:
    """Write what the window shows of a page, in few colours, because pictures are kept with the code.

    Args:
        page: The window.
        file: The page.
        picture: The file to write.
        order: Shows the examples in this order instead of the top of the page.
    """
    page.goto(file.as_uri())
    if order is not None:
        page.locator("[data-order]").select_option(label=order)
        page.evaluate("document.getElementById('examples').scrollIntoView()")
        page.wait_for_timeout(1000)
    page.screenshot(path=picture)
    with Image.open(picture) as shot:
        colours = 64 if order is None else 256
        shot.convert("RGB").quantize(colours).save(picture, optimize=True)


def main() -> None:
    """Write the pictures beside this file."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        pages, versions = make_pages(Path(folder)), versions_page(Path(folder))
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        window = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        for name in ("score", "comparison", "leaderboard"):
            photograph(window, pages[name], HERE / f"{name}.png")
        # Those of the README.
        photograph(window, pages["coarse"], HERE / "report.png", "by chance")
        photograph(window, versions, HERE / "before_after.png", "changed most first")
        browser.close()


if __name__ == "__main__":
    main()
