"""Every fenced block of README and docs/ is run or read, and every link leads somewhere."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import runpy
import shlex
import shutil
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pages import PAGES, ROOT, anchors, blocks, prose, section, text_of

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.dataset.sample import make_predictions, make_records

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

# Blocks that are neither Python nor commands, and how often a test below or in another file reads each kind.
READ_BY_A_TEST = {
    ("README.md", "text"): 1,  # the tree: test_architecture.py
    ("docs/index.md", "text"): 1,  # test_the_table_that_the_first_page_shows
    ("docs/predictions.md", "json"): 1,  # test_docs_tables.py
    ("docs/scale.md", "sql"): 1,  # test_scores_of_shards_join
    ("docs/construct.md", "text"): 1,  # a drawing of the stages: test_the_stages_of_a_construction
    ("docs/harnesses.md", "text"): 1,  # the command of another program
}

# Pages whose blocks need what no reader's folder has; the test file that runs them.
RUN_ELSEWHERE = {
    "docs/datasets.md": "test_known_sets.py",
    "docs/harnesses.md": "test_integrations.py",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What readers have: predictions, a snapshot, runs with a manifest, and the result of a run."""
    folder = tmp_path_factory.mktemp("reader")
    data = folder / "snapshot" / "data"
    data.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(make_records()), data / "validation.parquet")
    truth = {s["id"]: s["mask"] for record in make_records() for s in record["samples"]}
    rows = make_predictions(make_records(), "good", 1)
    # Right in every pixel, so that what a page says of the best is known.
    exact = [{**row, "segmentation": truth[row["sample_id"]]} for row in rows]
    for name, run in (
        ("one", rows),
        ("two", make_predictions(make_records(), "good", 2)),
        ("exact", exact),
    ):
        file = folder / "runs" / name / "preds.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text("\n".join(json.dumps(row) for row in run))
    (folder / "runs.csv").write_text(
        "path,model,step,note\n"
        "runs/exact/preds.jsonl,lisa,6000,a\n"
        "runs/one/preds.jsonl,lisa,3000,\n"
        "runs/two/preds.jsonl,glamm,6000,a\n"
    )
    pq.write_table(pa.Table.from_pylist(exact), folder / "preds.parquet")
    rc.score(folder / "preds.parquet", "sample").save(folder / "run")
    return folder


Namespace = dict[str, Any]


def _after_index(folder: Path, names: Namespace, out: str) -> None:
    assert len(names["writer"].pending()) == 0
    assert json.loads((folder / "run" / "summary.json").read_text())["miou"] == 1.0
    assert (folder / "run" / "report.html").is_file()


def _after_python(folder: Path, names: Namespace, out: str) -> None:
    assert "1.0 1.0 1.0" in out
    assert rc.load_results(folder / "out").miou == 1.0
    assert names["mask"].any()


def _after_training(folder: Path, names: Namespace, out: str) -> None:
    assert names["scores"]["refcocom/miou"] == 1.0


def _after_sweep(folder: Path, names: Namespace, out: str) -> None:
    best, *_ = names["small"].fetchall()
    assert best[:2] == ("lisa", "runs/exact/preds.jsonl")
    assert len(names["hard"].fetchall()) == 0
    assert len(names["split"].fetchall()) == 10
    assert "boundary IoU" in out
    rows = {row["name"]: row["columns"] for row in rc.load_results("sweep").rows}
    assert rows["lisa@6000"] == {"step": 6000, "note": "a"}
    for name in re.findall(r"^\| `(\w+\.\w+)`", text_of("docs/sweep.md"), re.MULTILINE):
        assert (folder / "sweep" / name).is_file(), name


def _after_gpu(folder: Path, names: Namespace, out: str) -> None:
    """The last line is an expression whose value the page gives."""
    (block,) = blocks("docs/gpu.md", "python")
    expression, _, said = block.text.rstrip().splitlines()[-1].partition("  # ")
    assert str(eval(expression, names).tolist()) in said


AFTER: dict[str, Callable[[Path, Namespace, str], None]] = {
    "README.md": _after_training,
    "docs/index.md": _after_index,
    "docs/python.md": _after_python,
    "docs/training.md": _after_training,
    "docs/sweep.md": _after_sweep,
    "docs/gpu.md": _after_gpu,
}


@pytest.mark.parametrize(
    "page",
    [
        # Four pages with their pictures take half a minute; tests of their own guard each kind.
        pytest.param(page, marks=[pytest.mark.slow] if page == "docs/reports.md" else [])
        for page in PAGES
        if (blocks(page, "python") or blocks(page, "bash")) and page not in RUN_ELSEWHERE
    ],
)
def test_the_blocks_of_a_page(made, tmp_path, monkeypatch, capsys, page):
    """Python and commands are run from the top of the page to its end, in a folder like the reader's."""
    folder = tmp_path / "reader"
    shutil.copytree(made, folder)
    # What a page makes is not there before.
    for name in re.findall(r"output_dir=(\w+)", text_of(page)):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in re.findall(r"PredictionWriter\(\"([\w.]+)\"", text_of(page)):
        (folder / name).unlink()
    monkeypatch.chdir(folder)
    names: Namespace = {}
    printed = []
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, page, "exec"), names)
        elif language == "bash":
            for line in text.splitlines():
                run_line(line)
        printed.append(capsys.readouterr().out)
    if page in AFTER:
        AFTER[page](folder, names, "\n".join(printed))


def test_blocks_that_run_elsewhere():
    for page, test in RUN_ELSEWHERE.items():
        assert Path(page).name in (ROOT / "tests" / test).read_text("utf-8")


def run_line(line: str) -> None:
    """Run a line of the command; of another program, hold what it names against what is there."""
    words = shlex.split(line, comments=True)
    match words:
        case []:
            assert not line.strip() or line.startswith("#"), line
        case ["refcocom", *rest]:
            assert main(rest) == 0, line
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
        case ["pip", "install", "-c", constraints, package]:
            assert (ROOT / constraints).is_file()
            assert extras_of(package) <= set(PYPROJECT["project"]["optional-dependencies"]), line
        case _:
            pytest.fail(f"no test knows how to run {line!r}")


def extras_of(package: str) -> set[str]:
    """The extras in `name[one,two]`."""
    return set(re.findall(r"[\w-]+", package.partition("[")[2]))


def test_every_block_has_a_test():
    others: dict[tuple[str, str], int] = {}
    for page in PAGES:
        assert text_of(page).count("\n```") == 2 * len(blocks(page)), (
            f"{page}: a fence that is no block"
        )
        for language, _ in blocks(page):
            if language not in {"python", "bash"}:
                others[page, language] = others.get((page, language), 0) + 1
    assert others == READ_BY_A_TEST


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_is_there(page):
    """Extras to install, modules to run and files of the repository."""
    text = text_of(page)
    for package in re.findall(r"pip install '(refcocom-gpu\[[^']*)'", text):
        assert extras_of(package) <= set(PYPROJECT["project"]["optional-dependencies"]), package
    for module in re.findall(r"`python -m (benchmarks[\w.]*)", text):
        assert importlib.util.find_spec(module), module
    for file in re.findall(
        r"`(?:python )?((?:benchmarks|docs|examples|tests)/[\w/.-]+\.\w+)", text
    ):
        assert (ROOT / file).is_file(), file


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    """Relative links name files of the repository, and anchors headings of theirs."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            assert target.startswith("https://"), target
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.is_file(), target
        if page != "README.md":
            assert (ROOT / "docs") in file.parents, f"{target}: the site does not hold it"
        if anchor:
            assert anchor in anchors(file.relative_to(ROOT).as_posix()), target


def test_anchors_are_found():
    """The link test sees headings as readers' programs do."""
    assert {"raw-answers-of-models", "boxes"} <= anchors("docs/adapters.md") | anchors(
        "docs/predictions.md"
    )
    assert "which-model-is-best-on-small-masks" not in anchors("docs/sweep.md")


def test_the_menu_lists_every_page():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))

    def files(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        values = entry if isinstance(entry, list) else entry.values()
        return [file for value in values for file in files(value)]

    listed = files(config["nav"])
    assert sorted(f"docs/{file}" for file in listed) == [p for p in PAGES if p != "README.md"]


def test_the_reference_lists_every_name():
    listed = re.findall(r"^(?:### |      heading: )rc\.(\w+)$", text_of("docs/api.md"), re.M)
    assert sorted(listed) == sorted({*rc._HOMES, *rc._MODULES})
    functions = re.findall(r"heading: rc\.adapters\.(\w+)$", text_of("docs/api.md"), re.M)
    assert set(rc.adapters._HOMES) <= set(functions) <= set(rc.adapters.__all__)
    for path, name in re.findall(
        r"^::: (\S+)\n    options:\n      heading: rc\.(\S+)", text_of("docs/api.md"), re.M
    ):
        assert path.rpartition(".")[2] == name.rpartition(".")[2]


def test_the_table_that_the_first_page_shows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = blocks("docs/index.md", "text")
    command, _, expected = block.text.partition("\n")
    assert main(shlex.split(command)[2:]) == 0
    # device=auto takes a GPU where there is one.
    assert re.sub(r"counted on cuda:\d+", "counted on cpu", capsys.readouterr().out) == expected


def test_the_table_of_python(made, tmp_path):
    """Every expression of the first column is evaluated; the results are those that the row above names."""
    table = text_of("docs/python.md").partition("| in Python or a notebook | is |\n|---|---|\n")[2]
    store = rc.MaskStore.build(rc.load_dataset("sample"))
    manifest = tmp_path / "runs.csv"
    shutil.copy(made / "runs" / "one" / "preds.jsonl", tmp_path)
    manifest.write_text("path,step\npreds.jsonl,1\n")
    outcome = rc.sweep(None, store, tmp_path / "sweep", manifest=manifest, replicates=99)
    result = rc.score("sample", store)
    names = {
        "rc": rc, "store": store, "dataset": store.dataset, "result": result, "leaderboard": outcome.leaderboard,
        "comparison": rc.compare(result, result, replicates=99),
    }  # fmt: skip
    cells = [line.split(" | ")[0] for line in table.partition("\n\n")[0].splitlines()]
    spans = [span for cell in cells for span in re.findall(r"`([^`]+)`", cell)]
    assert len(spans) == 13
    for span in spans:
        value = eval(span, dict(names))
        if span in names:
            assert len(repr(value).splitlines()) == 1
            assert value._repr_html_().startswith("<div><table")
        assert value is not None


def test_scores_of_shards_join(made, tmp_path, monkeypatch):
    """The SQL of docs/scale.md gives the scores of the whole set from folders that were swept apart."""
    monkeypatch.chdir(tmp_path)
    result = rc.score(made / "preds.parquet", "sample")
    other = rc.score(made / "runs" / "two" / "preds.jsonl", "sample")
    for k in range(2):
        for name, whole in (("a", result), ("b", other)):
            folder = tmp_path / "shards" / str(k) / "per_example" / f"model={name}"
            folder.mkdir(parents=True)
            rows = whole.per_example.take(list(range(k, whole.per_example.num_rows, 2)))
            pq.write_table(
                rows.append_column("step", pa.array([1] * len(rows))), folder / "x.parquet"
            )
    (block,) = blocks("docs/scale.md", "sql")
    found = {row[0]: row[2:] for row in duckdb.sql(block.text).fetchall()}
    for name, whole in (("a", result), ("b", other)):
        assert found[name] == pytest.approx((whole.miou, whole.ciou), abs=1e-12)


def test_the_stages_of_a_construction():
    """The drawing names the stages of the table below it, which name keys of the command."""
    (drawing,) = blocks("docs/construct.md", "text")
    rows = re.findall(
        r"^\| (\w+) \| .* \| (`.*`) \|$", section("docs/construct.md", "The method"), re.M
    )
    assert [stage for stage, _ in rows] == ["propose", "agree", "refine", "keep", "filter", "write"]
    from refcocom_gpu.cli.config import ConstructConfig

    for stage, keys in rows:
        assert stage in drawing.text
        for key in re.findall(r"`(\w+)`", keys):
            assert hasattr(ConstructConfig, key) or key in ConstructConfig.__dataclass_fields__, key


def test_every_example_is_listed():
    listed = re.findall(r"^- `(\w+\.(?:py|ipynb))`:", text_of("docs/training.md"), re.MULTILINE)
    there = [*(ROOT / "examples").glob("*.py"), *(ROOT / "examples").glob("*.ipynb")]
    assert sorted(listed) == sorted(path.name for path in there)


def test_the_licences_are_those_of_the_dependencies():
    """A row per package of pyproject.toml; of what is installed, the licence that it states."""
    made = runpy.run_path(str(ROOT / "docs" / "licences.py"))
    rows = re.findall(r"^\| ([\w.-]+) \| (.+) \| (.+) \|$", text_of("docs/licences.md"), re.M)[1:]
    assert {name: extras.split(", ") for name, _, extras in rows} == made["dependencies"]()
    assert [name for name, *_ in rows] == sorted((name for name, *_ in rows), key=str.lower)
    for name, stated, _ in rows:
        with contextlib.suppress(PackageNotFoundError):
            assert stated == made["licence"](name), f"{name}: python docs/licences.py"


def test_the_versions_are_those_of_the_project():
    """What is allowed is what pyproject.toml says, what is tested what constraints.txt and CI's Python say."""
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) \| ≥ ([\d.]+) \|$", text_of("docs/versions.md"), re.M)
    tested = {name: version for name, version, _ in rows}
    pinned = (ROOT / "constraints.txt").read_text("utf-8")
    for name in ("torch", "numpy"):
        assert re.search(rf"^{name}==(.*)$", pinned, re.M)[1] == tested[name]
    project = PYPROJECT["project"]
    assert [f">={least}" for *_, least in rows] == [
        project["requires-python"],
        *(
            next(d for d in project["dependencies"] if d.startswith(f"{name}>")).removeprefix(name)
            for name in ("torch", "numpy")
        ),
    ]
    # Others may test with another Python; `.ci/run` says which it is.
    if "REFCOCOM_CI" in os.environ:
        assert tested["Python"] == "{}.{}".format(*sys.version_info)


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert (cited["version"], cited["license"]) == (rc.__version__, PYPROJECT["project"]["license"])
