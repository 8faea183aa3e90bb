"""The notebook of the examples: its source runs anywhere, and its stored outputs are what the source gives."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

PATH = Path(__file__).parents[1] / "examples" / "scores.ipynb"
LARGEST = 200_000
"""Bytes: pictures in a notebook stay in the history of the repository for ever."""

TIMEOUT = 300
"""Seconds for a cell."""


@pytest.fixture(scope="module")
def stored():
    return nbformat.read(PATH, 4)


def shown(notebook):
    """What the cells show, but pictures, whose bytes depend on fonts and versions, and frames, whose layout does."""
    texts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            page = data.get("text/html", "")
            ours = page if page.startswith("<div><table") else ""
            frame = page and not ours
            texts.append(output.get("text") or ours or ("" if frame else data.get("text/plain")))
    return texts


def test_it_is_stored_whole_and_small(stored):
    nbformat.validate(stored)
    assert PATH.stat().st_size < LARGEST
    codes = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in codes] == [*range(1, len(codes) + 1)]
    assert all(cell.outputs for cell in codes)
    assert not any(output.output_type == "error" for cell in codes for output in cell.outputs)
    assert len([text for text in shown(stored) if text and text.startswith("<div>")]) >= 5
    pictures = [o for cell in codes for o in cell.outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 2


def test_it_names_no_place_of_a_machine(stored):
    text = nbformat.writes(stored)
    assert not re.search(r"/(?:tmp|home|root|Users|work)/", text)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore"
)  # of the kernel's libraries; those of the cells would be outputs
def test_its_source_gives_its_outputs(stored, tmp_path):
    fresh = nbformat.from_dict(stored)
    for cell in fresh.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    before = shown(nbformat.read(PATH, 4))
    NotebookClient(
        fresh,
        timeout=TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    assert shown(fresh) == before
