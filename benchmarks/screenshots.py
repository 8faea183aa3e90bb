"""`python -m benchmarks.screenshots`: the pictures of the documentation, `docs/report.png` and `docs/before_after.png`.

The first is the page of the built-in predictions. The second holds the masks of the built-in sample, made coarse as if
they were drawn by hand, against the exact ones. Needs Chromium and Playwright.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

import refcocom_gpu as rc
from benchmarks.construction.simulate import coarsen
from benchmarks.pages import BROWSERS
from refcocom_gpu.dataset.images import Images
from refcocom_gpu.dataset.sample import make_records
from refcocom_gpu.masks import rle

DOCS = Path(__file__).parents[1] / "docs"
WIDTH, HEIGHT = 1100, 1090
COLOURS = 256
"""Of the PNG: a page has few, and two thirds of the bytes go."""


def main() -> None:
    """Write both pages and photograph them."""
    with tempfile.TemporaryDirectory(prefix="refcocom-screenshots-") as folder:
        score, versions = write_pages(Path(folder))
        browser = next(path for name in BROWSERS if (path := shutil.which(name)))
        with sync_playwright() as playwright:
            opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            for page, picture, order in (
                (score, DOCS / "report.png", "by chance"),
                (versions, DOCS / "before_after.png", "changed most first"),
            ):
                tab = opened.new_page(viewport={"width": WIDTH, "height": HEIGHT})
                tab.goto(page.as_uri())
                tab.locator("[data-order]").select_option(label=order)
                tab.evaluate("document.getElementById('examples').scrollIntoView()")
                tab.wait_for_timeout(1000)
                tab.screenshot(path=picture)
                few = Image.open(picture).convert("RGB").quantize(COLOURS)
                few.save(picture, optimize=True)
                print(f"wrote {picture}")
            opened.close()


def write_pages(folder: Path) -> tuple[Path, Path]:
    """Return the page of a result and that of two versions of a set."""
    store = rc.MaskStore.build(rc.load_dataset("sample"), cache=False)
    result = rc.score("sample-coarse", store, metrics=["iou", "causes"], save_masks=True)
    score = rc.report(result, folder / "score.html", truth=store)
    rng = np.random.default_rng(0)
    records = [
        {
            **record,
            "samples": [
                {
                    **sample,
                    "bbox": None,
                    "mask": _text(rle.encode(coarsen(rle.decode(sample["mask"]), rng))),
                }
                for sample in record["samples"]
            ],
        }
        for record in make_records()
    ]
    original = folder / "coarse.jsonl"
    original.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    pictures = Images(store.dataset)
    (folder / "images").mkdir()
    for row, name in enumerate(store.dataset.images["file_name"].to_pylist()):
        pictures[row].save(folder / "images" / name)
    versions = rc.before_after(original, "sample")
    page = rc.report(versions, folder / "versions.html", images=folder / "images")
    return score, page


def _text(mask: dict[str, object]) -> dict[str, object]:
    counts = mask["counts"]
    return {**mask, "counts": counts.decode() if isinstance(counts, bytes) else counts}


if __name__ == "__main__":
    main()
