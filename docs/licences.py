"""Dependencies of pyproject.toml in, the table of docs/licences.md out: `python docs/licences.py`.

The licences are those that the installed packages state of themselves in their metadata; `make bench` installs all but
inspect_ai, which wants an older fsspec. A package that is not installed keeps its row.
"""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

HERE = Path(__file__).parent
OURS = "refcocom-gpu"
HEAD = "| package | licence | needed for |\n|---|---|---|\n"
SHORT = 40
"""Characters of a licence's name; what is longer is its text."""
UNSTATED = "not stated"


def dependencies() -> dict[str, list[str]]:
    """Return what needs each package: `everything`, or names of extras."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text("utf-8"))["project"]
    needed: dict[str, list[str]] = {}
    for extra, requirements in {
        "everything": project["dependencies"],
        **project["optional-dependencies"],
    }.items():
        for requirement in requirements:
            name = re.split(r"[^\w.-]", requirement)[0]
            if name != OURS and extra not in needed.setdefault(name, []):
                needed[name].append(extra)
    return needed


def licence(package: str) -> str:
    """Return the licence that an installed package states.

    Raises:
        PackageNotFoundError: It is not installed.
    """
    stated = metadata(package)
    if expression := stated.get("License-Expression"):
        return expression
    classifiers = [
        name.rpartition(" :: ")[2]
        for name in stated.get_all("Classifier") or []
        if name.startswith("License :: OSI Approved :: ")
    ]
    if classifiers:
        return ", ".join(classifiers)
    name = (stated.get("License") or "").strip()
    return name if name and len(name) <= SHORT else UNSTATED


def table(before: str) -> str:
    """Return the table, a row per package.

    Args:
        before: The table as it was, for packages that are not installed.

    Raises:
        SystemExit: A package is neither installed nor in the table.
    """
    known = dict(re.findall(r"^\| ([\w.-]+) \| (.+) \| .+ \|$", before, re.M))
    rows = []
    for name, extras in sorted(dependencies().items(), key=lambda pair: pair[0].lower()):
        try:
            stated = licence(name)
        except PackageNotFoundError:
            if (stated := known.get(name, "")) == "":
                raise SystemExit(f"{name} is not installed: pip install it beside this") from None
        rows.append(f"| {name} | {stated} | {', '.join(extras)} |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    page = HERE / "licences.md"
    text, _, before = page.read_text("utf-8").partition(HEAD)
    page.write_text(text + table(before), "utf-8")
