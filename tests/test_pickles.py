"""Pickles of results: plain containers and arrays are read, and nothing in them is executed."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import coco_encode

import refcocom_gpu as rc
from refcocom_gpu import adapters
from refcocom_gpu.adapters import pickles
from refcocom_gpu.masks import rle

A = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], bool)
B = np.array([[0, 1, 1, 0], [0, 0, 0, 1]], bool)
C = np.array([[0, 0, 0, 0], [1, 0, 0, 0]], bool)

PLAIN = {
    "boxes": np.arange(10, dtype=np.float32).reshape(2, 5),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "big-endian": np.arange(3, dtype=">i4"),
    "bools": np.eye(3, dtype=bool),
    "text": np.array(["cow", "é"]),
    "nothing": np.zeros((0, 4)),
    "scalars": [np.float64(1.5), np.bool_(True), np.int16(-3)],
    "rle": {"size": [1, 2], "counts": b"11\xff"},
    "no bytes": b"",
    "keys": {(1, "a"): 2, np.int64(3): 4, None: 5, frozenset([b"x"]): 6},
    "containers": ({1, 2}, frozenset([3]), OrderedDict(a=1), (None, True, 2**70, -1.5, "é")),
}


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_are_read(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "results.pkl"
    path.write_bytes(pickle.dumps(PLAIN, protocol))
    read = pickles.load(path)
    assert [*read] == [*PLAIN]
    for name, expected in PLAIN.items():
        assert type(read[name]) is type(expected)
        if isinstance(expected, np.ndarray):
            assert read[name].dtype == expected.dtype
            np.testing.assert_array_equal(read[name], expected, strict=True)
        else:
            assert read[name] == expected
    # One array that is referred to twice, and a list that holds itself.
    shared = [PLAIN["boxes"], (PLAIN["boxes"],)]
    shared.append(shared)
    again = pickles.load(pickle.dumps(shared, protocol))
    assert again[0] is again[1][0]
    assert again[2] is again


def test_names_of_numpy_1_are_read() -> None:
    content = pickle.dumps(PLAIN["boxes"], 2).replace(b"numpy._core", b"numpy.core")
    np.testing.assert_array_equal(pickles.load(content), PLAIN["boxes"])


def test_results_of_mmdetection_2_and_detectron2() -> None:
    boxes = [
        np.array([[0, 0, 4, 2, 0.5], [0, 0, 4, 2, 0.75]], np.float32),
        np.zeros((0, 5), np.float32),
    ]
    masks = [[{**coco_encode(m), "counts": coco_encode(m)["counts"].encode()} for m in (A, B)], []]
    ((scores, encoded),) = pickles.load(pickle.dumps([(boxes, masks)], 2))
    best = adapters.combine_masks(encoded[0], scores[0][:, 4], combine="best")
    np.testing.assert_array_equal(rle.decode(best), B)
    instances = [
        {"category_id": 0, "score": s, "segmentation": coco_encode(m)}
        for m, s in ((A, 0.9), (C, 0.1))
    ]
    (image,) = pickles.load(pickle.dumps([{"image_id": 7, "instances": instances}]))
    pairs = [(entry["segmentation"], entry["score"]) for entry in image["instances"]]
    assert adapters.combine_masks(pairs, combine="best") == coco_encode(A)


class Calls:
    """What a pickle makes of it is a call of any function with any arguments."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced


MALICIOUS = {
    "os.system": (Calls(os.system, "touch {path}"), r"names (posix|nt)\.system"),
    "eval": (Calls(eval, "open('{path}', 'w')"), r"names (builtins|__builtin__)\.eval"),
    "exec": (Calls(exec, "open('{path}', 'w')"), r"names (builtins|__builtin__)\.exec"),
    "getattr": (Calls(getattr, 1, "real"), r"names (builtins|__builtin__)\.getattr"),
    "open": (Calls(io.open, "{path}", "w"), r"names _?io\.open"),
    "subprocess": (Calls(subprocess.Popen, ["touch", "{path}"]), r"names (subprocess|commands)\.Popen"),
    "a type": (subprocess.Popen, r"names (subprocess|commands)\.Popen"),
    "bytes of any length": (Calls(bytes, 10**12), "not a plain pickle"),
    "numpy.load": (Calls(np.load, "{path}", None, True), r"names numpy\S*\.load"),
    "numpy.save": (Calls(np.save, "{path}", 1), r"names numpy\S*\.save"),
    "numpy.zeros": (Calls(np.zeros, 10**12), r"names numpy\S*\.zeros"),
    "ndarray called": (Calls(np.ndarray, (10**12,)), "not a plain pickle"),
    "a memmap": (Calls(np.memmap, "{path}", "u1", "w+", 0, (9,)), r"names numpy\S*memmap"),
    "an array of objects": (np.array([1, "a"], object), "dtype 'O8'"),
    "a structured array": (np.zeros(2, [("a", "i4")]), "dtype 'V4'"),
    "objects said to be numbers": (
        Calls(np.dtype, "O8", False, True, state=(3, "|", None, None, None, -1, -1, 0)), "dtype 'O8'",
    ),
    "a state with fields": (
        Calls(np.dtype, "u8", False, True, state=(3, "<", None, ("a",), {"a": 1}, 8, 8, 0)), "structured dtype",
    ),
    "a function": (Calls(np.dtype, os.getcwd), r"names (posix|nt)\.getcwd"),
    "a tensor": (torch.ones(2), r"names torch\._utils\._rebuild_tensor_v2.*tensor\.numpy"),
    "a storage": (torch.ones(2).untyped_storage(), r"names torch\.\S+.*tensor\.numpy"),
    "a dtype as a key": ({np.dtype("f4"): 1}, "a key that is no number or text"),
    "a dtype in a set": ({(1, np.dtype("f4"))}, "a key that is no number or text"),
    "a path": (Path("x"), r"names pathlib\S*Path"),
    "a complex number": (1 + 2j, r"names (builtins|__builtin__)\.complex"),
}  # fmt: skip


def at(value: Any, path: Path) -> Any:
    """Put a path into the arguments of a call."""
    if isinstance(value, str):
        return value.replace("{path}", str(path))
    return [at(entry, path) for entry in value] if isinstance(value, list) else value


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("name", sorted(MALICIOUS))
def test_nothing_in_a_pickle_is_executed(name: str, protocol: int, tmp_path: Path) -> None:
    value, message = MALICIOUS[name]
    path = tmp_path / "touched"
    if isinstance(value, Calls):
        function, arguments, state = value.reduced
        value = Calls(function, *(at(a, path) for a in arguments), state=state)
    content = pickle.dumps([{"segmentation": [value]}], protocol)
    with pytest.raises(rc.DataError, match=message) as caught:
        pickles.load(content)
    assert str(caught.value).startswith("the pickle: ")
    assert not path.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a plain pickle"),
        (pickle.dumps([1, 2])[:-1], "not a plain pickle"),
        (b"not a pickle", "not a plain pickle"),
        (pickle.dumps(1) + pickle.dumps(2), "more follows behind the first pickle"),
        (b"\x80\x02cnumpy\nndarray\n.", "holds a function or a type"),
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R.", "an array without values"),
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00rot\x86R.", "_codecs.encode with 'rot'"),
        (b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00S0\x85R.", "dtype 'S0'"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", r"names numpy\.ndarray\.tofile"),
        (b"\x80\x02U\x07storageQ.", "outside of the pickle"),
        (b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".", "not a plain pickle: maximum recursion"),
    ],
)  # fmt: skip
def test_damaged_and_crafted_streams_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(rc.DataError, match=message):
        pickles.load(content)


def test_an_array_must_fill_its_shape() -> None:
    content = pickle.dumps(np.arange(4, dtype=np.uint8), 5)
    assert pickles.load(content).tolist() == [0, 1, 2, 3]
    at_shape = content.index(b"K\x04\x85")
    with pytest.raises(rc.DataError, match=r"shape \(200,\) whose values do not fill it"):
        pickles.load(content[: at_shape + 1] + b"\xc8" + content[at_shape + 2 :])


def test_a_pickle_that_changes_what_it_names_changes_no_other() -> None:
    """BUILD sets attributes on any object, also on a function that the list of names holds."""
    state = pickle.dumps((None, {"__defaults__": ("rot13",)}), 2)[2:-1]
    for name in (b"_codecs\nencode", b"collections\nOrderedDict", b"numpy\ndtype"):
        with pytest.raises(rc.DataError):
            pickles.load(b"\x80\x02c" + name + b"\n" + state + b"b.")
    assert pickles.load(pickle.dumps([b"ab\xff", PLAIN["boxes"]], 2))[0] == b"ab\xff"


def test_files_of_torch_save_are_named(tmp_path: Path) -> None:
    path = tmp_path / "instances_predictions.pth"
    torch.save([{"instances": []}], path)
    with pytest.raises(rc.DataError, match=r"a zip archive, as torch.save writes"):
        pickles.load(path)
    torch.save([{"instances": []}], path, _use_new_zipfile_serialization=False)
    with pytest.raises(rc.DataError, match="more follows behind the first pickle"):
        pickles.load(str(path))
    with pytest.raises(rc.DataError, match=r"absent\.pkl: cannot be read: No such file"):
        pickles.load(tmp_path / "absent.pkl")
