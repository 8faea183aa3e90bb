"""The site that `make docs` builds: without a warning, from disk, and without a request to any other host."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pages import PAGES, ROOT

pytest.importorskip("mkdocs", reason="MkDocs is not installed")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=True,
        capture_output=True,
    )
    return folder


class Loads(HTMLParser):
    """What a page makes a browser load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") not in {"canonical", "prev", "next"}:
            self.addresses.append(given.get("href") or "")
        elif tag != "a":
            self.addresses.append(given.get("src") or "")


@pytest.mark.slow
def test_every_page_is_there_and_loads_from_the_site_alone(site):
    for page in PAGES:
        if page != "README.md":
            assert (site / f"{Path(page).stem}.html").is_file(), page
    for file in site.glob("*.html"):
        for address in Loads(file.read_text("utf-8")).addresses:
            assert not re.match(r"([a-z]+:)?//", address), (file.name, address)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_it_opens_from_disk_and_its_search_works(site):
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 400, "height": 900})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        for name in ("api", "predictions", "index"):
            page.goto((site / f"{name}.html").as_uri())
            # Nothing makes a phone scroll sideways.
            assert page.evaluate("document.documentElement.scrollWidth") <= 400, name
        page.set_viewport_size({"width": 1280, "height": 900})
        page.fill(".md-search__input", "letterbox")
        page.wait_for_selector(".md-search-result__item")
        assert page.locator(".md-search-result__item").first.inner_text()
        assert all(re.match(r"(file|data|blob|about):", url) for url in asked), asked
        browser.close()
