"""Pages in a real browser: nothing is fetched, nothing runs but our script, what is chosen is what is shown."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from helpers import REAL, coco_encode
from test_report import hostile_dataset

import refcocom_gpu as rc
from refcocom_gpu.report.overlay import EXTRA, HIT

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
BROWSER = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    None,
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Pages by kind, each written when it is first asked for."""
    folder = tmp_path_factory.mktemp("pages")

    @cache
    def written(kind: str) -> Path:
        return MAKERS[kind](folder)

    return written


def _score(folder: Path, pictures: str = "embed") -> Path:
    store = rc.MaskStore.build(rc.load_dataset("sample"))
    result = rc.score("sample-coarse", store, metrics=["iou", "causes"], save_masks=True)
    return rc.report(result, folder / f"score-{pictures}.html", truth=store, pictures=pictures)


def _compare(folder: Path) -> Path:
    store = rc.MaskStore.build(rc.load_dataset("sample"))
    a, b = (rc.score(name, store, save_masks=True) for name in ("sample", "sample-coarse"))
    return rc.report(
        rc.compare(a, b, names=("fine", "coarse")), folder / "compare.html", truth=store
    )


def _sweep(folder: Path) -> Path:
    manifest = folder / "manifest.csv"
    manifest.write_text("path,model,step\nsample,<i>a</i>,10\nsample-coarse,<i>a</i>,20\n", "utf-8")
    # A manifest takes files, not the sets that are built in.
    for name in ("sample", "sample-coarse"):
        rc.convert(name, folder / f"{name}.parquet", rc.load_dataset("sample"))
    manifest.write_text(manifest.read_text("utf-8").replace(",<", ".parquet,<"), "utf-8")
    outcome = rc.sweep(None, "sample", folder / "sweep", manifest=manifest, replicates=99)
    return rc.report(outcome.leaderboard, folder / "sweep.html")


def _before_after(folder: Path) -> Path:
    rc.construct(["sample", "sample-coarse"], "sample", folder / "made")
    return rc.report(rc.before_after("sample", folder / "made"), folder / "before.html")


def _hostile(folder: Path) -> Path:
    dataset = hostile_dataset(folder)
    result = rc.score({0: None, 1: None, 2: None}, dataset, save_masks=True)
    return rc.report(result, folder / "hostile.html", truth=dataset)


def _real(folder: Path) -> Path:
    records = REAL / "refcoco" / "refcoco_m_like.jsonl"
    if not records.is_file():
        pytest.skip(f"{records} is absent")
    store = rc.MaskStore.build(rc.load_dataset(records))
    masks = {k: coco_encode(store.mask(k)[:, ::-1]) for k in range(len(store))}
    result = rc.score(masks, store, metrics=["iou", "causes"], save_masks=True)
    return rc.report(result, folder / "real.html", truth=store, images=REAL / "refcoco" / "images")


MAKERS: dict[str, Callable[[Path], Path]] = {
    "score": _score,
    "linked": lambda folder: _score(folder, "link"),
    "compare": _compare,
    "sweep": _sweep,
    "before": _before_after,
    "hostile": _hostile,
    "real": _real,
}


class Visit:
    """A page that is open, with what it said and asked for."""

    def __init__(self, browser: Any, path: Path, *, width: int = 1200, dark: bool = False) -> None:
        self.page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
        )
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append("dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_load_state("load")

    def control(self, label: str, element: str) -> Any:
        """What chooses examples, by the text before it."""
        labels = self.page.locator(".controls label", has_text=re.compile(f"^{label}"))
        return labels.locator(element)

    def count(self, selector: str) -> int:
        return self.page.locator(selector).count()

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_inner_texts()


@pytest.fixture
def visit(browser: Any, page_of: Callable[[str], Path]) -> Iterator[Callable[..., Visit]]:
    visits: list[Visit] = []

    def opened(kind: str, **how: Any) -> Visit:
        visits.append(Visit(browser, page_of(kind), **how))
        return visits[-1]

    yield opened
    for each in visits:
        each.page.close()


@pytest.mark.parametrize("kind", [*MAKERS])
def test_a_page_opens_from_disk_says_nothing_and_asks_for_nothing(
    visit: Any, page_of: Any, kind: str
) -> None:
    opened = visit(kind)
    # Cards load their pictures when they come into view.
    opened.page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    opened.page.wait_for_timeout(300)
    assert opened.said == []
    path = page_of(kind)
    beside = path.with_name(f"{path.stem}_pictures").as_uri()
    fetched = [url for url in opened.asked if not url.startswith("data:") and url != path.as_uri()]
    assert [url for url in fetched if not url.startswith(beside)] == []
    assert bool(fetched) == (kind == "linked")


@pytest.mark.parametrize("kind", [*MAKERS])
@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_a_page_without_scrolling_sideways(visit: Any, kind: str, dark: bool) -> None:
    opened = visit(kind, width=400, dark=dark)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 400
    colour = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, colour[4:-1].split(","))) < 200) == dark, colour


def test_every_plot_has_a_text(visit: Any) -> None:
    for kind in ("score", "compare", "sweep", "before"):
        opened = visit(kind)
        labels = opened.page.eval_on_selector_all(
            "svg", "all => all.map(svg => svg.getAttribute('aria-label'))"
        )
        assert labels, kind
        assert all(label and any(c.isdigit() for c in label) for label in labels)
        ids = opened.page.eval_on_selector_all("[id]", "all => all.map(element => element.id)")
        assert len(ids) == len(set(ids))


def test_tables_sort_by_click_and_by_key(visit: Any) -> None:
    opened = visit("score")
    table = opened.page.locator("#slices table").first
    column = "tbody tr td:nth-child(4)"
    button = table.locator("thead th:nth-child(4) button")
    button.click()
    values = [float(text) for text in table.locator(column).all_inner_texts()]
    assert len(values) > 3
    assert values == sorted(values, reverse=True)
    button.focus()
    opened.page.keyboard.press("Enter")
    values = [float(text) for text in table.locator(column).all_inner_texts()]
    assert values == sorted(values)
    assert table.locator("thead th:nth-child(4)").get_attribute("aria-sort") == "ascending"


def test_examples_are_chosen_by_cause_category_and_text(visit: Any) -> None:
    opened = visit("score")
    result = rc.score("sample-coarse", "sample", metrics=["iou", "causes"])
    sentences = result.per_example["sentence"].to_pylist()
    page = opened.page
    page.uncheck("[data-drawn]")
    status = page.locator("[data-status]")
    assert "297 examples" in status.inner_text()
    wrong = int((result.causes == "wrong instance").sum())
    opened.control("cause", "select").select_option(label=f"wrong instance ({wrong})")
    assert f"of {wrong} examples" in status.inner_text()
    opened.control("cause", "select").select_option(label="all")
    opened.control("Text", "input").fill("RED star")
    expected = sum("red star" in sentence for sentence in sentences)
    assert 0 < expected < 24
    assert opened.count(".card") == expected
    assert all("red star" in text for text in opened.texts(".card .sentence"))
    opened.control("Text", "input").fill("")
    opened.control("Order", "select").select_option(label="worst first")
    ious = [float(text) for text in opened.texts(".card dl div:first-child dd")]
    assert len(ious) == 24
    assert ious == sorted(ious)
    page.get_by_role("button", name="Show more").click()
    assert opened.count(".card") == 48


COLOURS = """async (image) => {
  image.loading = "eager"; // one that is not in view would never load
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return [...context.getImageData(0, 0, canvas.width, canvas.height).data];
}"""


def near(pixels: list[int], colour: tuple[int, int, int]) -> int:
    """How many pixels have nearly the hue of a fill, which lies over grey."""
    red, green, blue = (pixels[c::4] for c in range(3))
    mean = sum(colour) / 3
    found = 0
    for pixel in zip(red, green, blue, strict=True):
        grey = sum(pixel) / 3
        found += all(
            abs((p - grey) - 0.6 * (c - mean)) < 22 for p, c in zip(pixel, colour, strict=True)
        )
    return found


def test_overlays_show_what_was_hit_and_what_was_too_much(visit: Any) -> None:
    opened = visit("score")
    opened.control("Order", "select").select_option(label="best first")
    pixels = opened.page.locator(".card img").first.evaluate(COLOURS)
    assert near(pixels, HIT) > 300
    opened.control("Order", "select").select_option(label="worst first")
    opened.control("cause", "select").select_option(index=5)
    pixels = opened.page.locator(".card img").first.evaluate(COLOURS)
    assert near(pixels, EXTRA) > 50


def test_a_point_of_the_scatter_leads_to_its_example(visit: Any) -> None:
    opened = visit("compare")
    links = opened.page.eval_on_selector_all(
        "svg a", "all => all.map(a => a.getAttribute('xlink:href') ?? a.getAttribute('href'))"
    )
    assert links
    opened.page.evaluate(f"location.hash = {json.dumps(links[0])}")
    found = opened.page.locator(".card.found")
    found.wait_for()
    assert f"#{found.get_attribute('id')}" == links[0]
    assert found.locator("img").count() == 2


def test_hostile_text_is_text(visit: Any, tmp_path: Path) -> None:
    opened = visit("hostile")
    opened.page.uncheck("[data-drawn]", force=True) if opened.page.locator(
        "[data-drawn]"
    ).is_visible() else None
    shown = opened.texts(".card .sentence")
    expected = rc.load_dataset(hostile_dataset(tmp_path).source).examples["sentence"].to_pylist()
    assert sorted(" ".join(text.split()) for text in shown) == sorted(
        " ".join(text.split()) for text in expected
    )
    assert opened.said == []
    assert "hacked" not in opened.page.title()
    assert opened.count("img:not(.card img)") == 0
    assert opened.page.evaluate("window.hacked === undefined")
    direction = opened.page.eval_on_selector_all(
        ".card .sentence", "all => all.map(p => getComputedStyle(p).direction)"
    )
    assert {*direction} == {"ltr", "rtl"}


def test_real_pictures_are_drawn_and_absent_ones_are_said(visit: Any) -> None:
    opened = visit("real")
    assert "drawn on grey" in opened.page.locator("header").inner_text()
    assert opened.count(".card img") > 0
