"""The built-in sample in, the pictures of docs/reports.md out: `python docs/screenshots.py`; it needs Chromium."""

import itertools
import json
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

import refcocom_gpu as rc
from refcocom_gpu.dataset.sample import make_predictions, make_records

HERE = Path(__file__).parent
WIDTH, HEIGHT = 1000, 1200
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
        "comparison": rc.report(comparison, folder / "comparison.html", truth=store),
        "leaderboard": rc.report(board, folder / "leaderboard.html"),
    }


def photograph(page: Page, file: Path, picture: Path) -> None:
    """Write what the window shows of a page, in 64 colours, because pictures are kept with the code."""
    from PIL import Image

    page.goto(file.as_uri())
    page.screenshot(path=picture)
    with Image.open(picture) as shot:
        shot.convert("RGB").quantize(64).save(picture, optimize=True)


def main() -> None:
    """Write the pictures beside this file."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        pages = make_pages(Path(folder))
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        window = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        for name, file in pages.items():
            photograph(window, file, HERE / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
