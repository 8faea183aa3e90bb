"""`python -m benchmarks.pages`: what the page of 5,598 examples costs to write, and what it takes a browser to filter.

Pictures are photographs as far as a codec can tell: smooth, with noise, JPEG at the sizes of the workload's images. The
times of filters are those that the page measures itself, from the choice to the last card in the document. Writes
`benchmarks/results/pages.json` and `pages.md`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import refcocom_gpu as rc
from benchmarks.timing import machine
from benchmarks.workload import N_EXAMPLES, Workload

RESULTS = Path(__file__).parent / "results"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TARGET_MS = 100
"""Milliseconds that a filter may take."""


def main() -> None:
    """Write pages, open one, print and keep what they took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=__doc__)
    parser.add_argument("--rounds", type=int, default=11, help="times that each filter is used")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="refcocom-pages-") as folder:
        rows = measured(Path(folder), arguments.rounds)
    about = machine()
    content = {"date": datetime.date.today().isoformat(), "machine": about, "rows": rows}
    (RESULTS / "pages.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    text = "\n".join(
        [
            f"# Pages of {N_EXAMPLES:,} examples\n",
            f"`python -m benchmarks.pages`, {content['date']}, {about['cpu']}, {about['cores']} cores.\n",
            "| | |", "|---|---:|",
            *(f"| {name} | {value} |" for name, value in rows.items()),
        ]
    )  # fmt: skip
    (RESULTS / "pages.md").write_text(text + "\n", "utf-8")
    print(text)


def measured(folder: Path, rounds: int) -> dict[str, Any]:
    """Return what was measured, by what it is."""
    workload = Workload()
    dataset = rc.load_dataset(workload.write_dataset(folder / "dataset.jsonl"))
    store = rc.MaskStore.build(dataset, cache=False)
    images = folder / "images"
    _draw_pictures(dataset, images)
    predictions = [
        workload.rle(workload.predictions, row, s) for row, s in enumerate(workload.sample.tolist())
    ]
    result = rc.score(
        list(enumerate(predictions)), store, metrics=["iou", "causes"], save_masks=True
    )
    rows: dict[str, Any] = {}
    for pictures in ("none", "embed", "link"):
        page = folder / f"{pictures}.html"
        start = time.perf_counter()
        rc.report(result, page, truth=store, images=images, pictures=pictures)
        rows[f"page with pictures={pictures}, s"] = round(time.perf_counter() - start, 1)
        rows[f"page with pictures={pictures}, MB"] = round(page.stat().st_size / 1e6, 2)
    linked = [path.stat().st_size for path in (folder / "link_pictures").iterdir()]
    rows["thumbnails linked"] = len(linked)
    rows["all thumbnails, MB"] = round(sum(linked) / 1e6, 1)
    rows["peak memory of this process, MB"] = round(
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    )
    return {**rows, **_in_browser(folder / "link.html", rounds)}


def _draw_pictures(dataset: rc.Dataset, folder: Path) -> None:
    """Draw a picture for each image: colours that change slowly, and noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    first = np.searchsorted(dataset.sample_image, np.arange(dataset.n_images))
    for name, sample in zip(dataset.images["file_name"].to_pylist(), first.tolist(), strict=True):
        size = int(dataset.widths[sample]), int(dataset.heights[sample])
        coarse = rng.integers(0, 255, (6, 8, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
        noisy = smooth.astype(np.int16) + rng.integers(-12, 12, smooth.shape, np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / name, quality=90)


def _in_browser(page: Path, rounds: int) -> dict[str, Any]:
    """Open a page and use its filters; nothing where there is no browser."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        return {"filters": "not measured: no Chromium is installed"}
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = opened.new_page(viewport={"width": 1200, "height": 900})
        start = time.perf_counter()
        tab.goto(page.as_uri())
        tab.wait_for_selector(".card")
        rows: dict[str, Any] = {"opened, s": round(time.perf_counter() - start, 2)}
        gallery, text = tab.locator("[data-gallery]"), tab.locator("[data-text]")
        order, choice = tab.locator("[data-order]"), tab.locator("[data-choices] select").first

        def took() -> float:
            return float(gallery.get_attribute("data-milliseconds") or "nan")

        used = {
            "text": lambda k: text.fill(f"expression {k % 3} of {k}"),
            "no text": lambda k: (text.fill("x"), text.fill("")),
            "order": lambda k: order.select_option(index=k % 3),
            "cause": lambda k: choice.select_option(index=k % 3),
        }
        for name, use in used.items():
            times = []
            for k in range(rounds):
                use(k)
                times.append(took())
            rows[f"filter by {name}, ms: median, most"] = (
                f"{np.median(times):.1f}, {max(times):.1f}"
            )
        opened.close()
    return {**rows, "target of a filter, ms": TARGET_MS}


if __name__ == "__main__":
    main()
