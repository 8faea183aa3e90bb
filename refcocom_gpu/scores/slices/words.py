"""Sentences in, whether each holds one of a list of words out: whole words in any case.

The lists are ours. They hold what occurs in RefCOCO and says one thing; a word with two meanings (`over`, `down`, `in`)
is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from refcocom_gpu.utils.arrow import to_numpy

SPATIAL = (
    "left", "right", "leftmost", "rightmost", "top", "topmost", "bottom", "bottommost", "upper", "lower",
    "front", "frontmost", "back", "rear", "behind", "foreground", "background", "middle", "center", "centre",
    "central", "centermost", "highest", "lowest", "corner", "side", "edge", "above", "below", "under", "underneath",
    "beneath", "near", "nearer", "nearest", "close", "closer", "closest", "far", "farther", "farthest", "further",
    "furthest", "between", "beside", "next to",
)  # fmt: skip
"""Words of place: where the object is in the picture, or as seen from another object."""

RELATIONAL = (
    "next to", "beside", "besides", "alongside", "between", "among", "near", "nearest", "close to", "closer to",
    "closest to", "by", "against", "around", "behind", "in front of", "across from", "facing", "on", "onto", "atop",
    "above", "below", "under", "underneath", "beneath", "inside", "with", "without", "holding", "carrying", "wearing",
    "riding", "touching", "hugging", "pulling", "pushing", "eating", "drinking", "using", "looking at", "leaning",
    "attached to", "surrounded by",
)  # fmt: skip
"""Words that relate the object to another one."""

PLACES = (
    "on left", "on right", "on the left", "on the right", "on far left", "on far right", "on the far left",
    "on the far right",
)  # fmt: skip
"""Places in the picture, whose `on` relates the object to no other one."""

_APART = r"[^\p{L}\p{N}_]+"
"""What stands between words: anything but letters, digits and underscores."""


def has_words(
    sentences: pa.ChunkedArray, words: Sequence[str], but_for: Sequence[str] = ()
) -> NDArray[np.bool_]:
    """Return which sentences hold one of some words.

    Args:
        sentences: [N] text without nulls.
        words: In lower case. The words of a phrase follow each other, whatever else stands between them.
        but_for: Phrases that are passed over first.

    Returns:
        [N] bool.

    >>> sentences = pa.chunked_array([["The LEFT-most cow", "leftover", "cow on left", "next, to it"]])
    >>> has_words(sentences, ["left", "next to", "on"], but_for=["on left"])
    array([ True, False, False,  True])
    """
    # Two spaces, so that each of two neighbours has one of its own.
    spaced = pc.replace_substring_regex(sentences, _APART, "  ")
    if but_for:
        # An underscore is part of a word, so that the words on either side do not become a phrase.
        spaced = pc.replace_substring_regex(spaced, _pattern(but_for), " _ ")
    return to_numpy(pc.match_substring_regex(spaced, _pattern(words)))


def _pattern(words: Sequence[str]) -> str:
    phrases = "|".join("  ".join(word.split()) for word in words)
    return f"(?i)(?:^| )(?:{phrases})(?: |$)"
