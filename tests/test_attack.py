"""The script of the attack runs, and can fail: a folder that is not mended is found. `make attack` runs all of it."""

import time

import pytest
from attack import RIGHT, WRONG, Attempt, attack, is_equal, printed

pytestmark = pytest.mark.slow


def test_some_flipped_bits():
    table, found = attack(0, 8, 0, ["flips"])
    assert found == []
    assert sum(counts.total() for counts in table.values()) == 8
    assert printed(table).count("\n") == 1 + len(table)


def test_what_is_wrong_is_told():
    assert Attempt(is_equal(1, lambda: 1)).outcome() == RIGHT
    assert Attempt(is_equal(1, lambda: 2)).outcome().startswith(WRONG)
    assert Attempt(lambda: 1 // 0).outcome().startswith("traceback: ZeroDivisionError")
    assert Attempt(lambda: time.sleep(9)).outcome(0.2) == "hang"
