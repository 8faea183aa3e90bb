"""Dependencies of pyproject.toml in, the table of docs/licences.md out: `python docs/licences.py`.

It needs all extras, which `make bench` installs.
The licences are those that the installed packages state of themselves in their metadata.
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


def table() -> str:
    """Return the table, a row per package.

    Raises:
        SystemExit: A package is not installed.
    """
    rows = []
    for name, extras in sorted(dependencies().items(), key=lambda pair: pair[0].lower()):
        try:
            rows.append(f"| {name} | {licence(name)} | {', '.join(extras)} |\n")
        except PackageNotFoundError:
            raise SystemExit(f"{name} is not installed: make bench installs all") from None
    return HEAD + "".join(rows)


if __name__ == "__main__":
    page = HERE / "licences.md"
    page.write_text(page.read_text("utf-8").partition(HEAD)[0] + table(), "utf-8")
