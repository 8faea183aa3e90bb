"""`python -m benchmarks.compare OLD.json NEW.json`: which of our cases changed by more than their noise."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def main() -> int:
    """Print each of our cases that both files hold; return 1 if one became slower by more than its noise."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    arguments = parser.parse_args()
    old, new = (json.loads(path.read_text("utf-8")) for path in (arguments.old, arguments.new))
    if old["machine"]["cpu"] != new["machine"]["cpu"]:
        print(f"note: {old['machine']['cpu']} and {new['machine']['cpu']} are different machines")
    slower = 0
    for (case, name), (before, after) in pairs(old, new).items():
        change = verdict(before, after)
        slower += change == "slower"
        ratio = after["median"] / before["median"]
        print(
            f"{change:>9}  {ratio:6.2f}×  {before['median']:9.2f} → {after['median']:9.2f}  {case}: {name}"
        )
    return int(slower > 0)


def pairs(old: dict[str, Any], new: dict[str, Any]) -> dict[tuple[str, str], tuple[Any, Any]]:
    """Our rows that both files hold, by case and contender."""

    def rows(content: dict[str, Any]) -> dict[tuple[str, str], Any]:
        return {
            (case["case"], row["contender"]): row
            for case in content["cases"]
            for row in case["results"]
            if row["kind"] == "ours"
        }

    before, after = rows(old), rows(new)
    return {key: (before[key], after[key]) for key in before if key in after}


def verdict(before: dict[str, float], after: dict[str, float]) -> str:
    """`slower` or `faster` if the middle 80 % of the two runs do not overlap, else `same`."""
    if after["q10"] > before["q90"]:
        return "slower"
    return "faster" if after["q90"] < before["q10"] else "same"


if __name__ == "__main__":
    raise SystemExit(main())
