"""Archives of masks: scored in place; bombs, damage and every mistake of a member are named."""

import gzip
import io
import struct
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
from helpers import problems_of
from prediction_files import CASE, COMPRESS, FIRST, MASKS, MEMBERS, STORE, N, npy, only_problem, png

import refcocom_gpu as rc
from refcocom_gpu.predictions import limits
from refcocom_gpu.utils.files import hash_file

ARCHIVES = [".zip", ".tar", ".tgz", *(f".tar{codec}" for codec in COMPRESS)]


def write_archive(path, members):
    """An archive of files by name, in which a folder stands too."""
    members = list(members.items() if isinstance(members, dict) else members)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.mkdir("masks")
            for name, content in members:
                archive.writestr(name, content)
        return path
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        folder = tarfile.TarInfo("masks")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    compress = COMPRESS.get(".gz" if path.suffix == ".tgz" else path.suffix, bytes)
    path.write_bytes(compress(file.getvalue()))
    return path


@pytest.mark.parametrize("suffix", ARCHIVES)
def test_archives_of_masks(tmp_path, suffix):
    members = {
        **{f"./{name}": content for name, content in list(MEMBERS.items())[::2]},
        **{f"{name}.npy": npy(mask) for name, mask in list(MASKS.items())[1::2]},
        "__MACOSX/masks/._1_0.png": b"of the system",
        "masks/.DS_Store": b"of the system",
    }
    path = write_archive(tmp_path / f"p{suffix}", members)
    result = CASE.check(path, batch_size=7)
    assert result.info["predictions"]["xxh3_128"] == hash_file(path)


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_logits_in_an_archive(tmp_path, suffix):
    members = {f"{name}.npy": npy(2.0 * mask - 1) for name, mask in MASKS.items()}
    CASE.check(write_archive(tmp_path / f"p{suffix}", members))


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_every_mistake_of_an_archive(tmp_path, suffix):
    members = [
        *list(MEMBERS.items())[1:],
        ("../1_0.png", b""),
        ("/masks/1_0.png", b""),
        ("a\\..\\1_0.png", b""),
        ("C:\\1_0.png", b""),
        ("masks/notes.txt", b""),
        ("other/" + list(MEMBERS)[1], MEMBERS[FIRST]),
        ("masks/cat.png", MEMBERS[FIRST]),
        (f"{CASE.names()[0]}.npy", npy(np.array([{"an": "object"}]))),
    ]
    path = write_archive(tmp_path / f"p{suffix}", members)
    error = problems_of(path, STORE)
    assert error.counts == {
        "unsafe name": 4, "unknown file": 1, "duplicate": 1, "bad key": 1, "malformed mask": 1,
    }  # fmt: skip
    assert f"{path}, member ../1_0.png" in {p.where for p in error.problems}
    assert any("pickles" in p.message for p in error.problems)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(png(np.zeros((2000, 2000), bool)), id="png"),
        pytest.param(npy(np.zeros((2000, 2000), bool)), id="npy"),
        pytest.param(npy(np.zeros((2000, 2000), bool))[:200], id="cut"),
        pytest.param(b"\x93NUMPY\x03\0" + npy(np.zeros(1))[8:], id="version"),
    ],
)
@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_a_member_that_declares_too_much(tmp_path, monkeypatch, suffix, content):
    monkeypatch.setattr(limits, "LEAST_PIXELS", 1)
    ending = ".png" if content.startswith(b"\x89PNG") else ".npy"
    name = CASE.names()[0] + ending
    members = {name: content, **dict(list(MEMBERS.items())[1:])}
    path = write_archive(tmp_path / f"p{suffix}", members)
    problem = only_problem(path)
    assert (problem.kind, problem.where) == ("malformed mask", f"{path}, member {name}")
    says = "version" if content[6:7] == b"\x03" else "2000×2000 pixels, more than"
    assert says in problem.message


def peak_of(path) -> tuple[int, rc.PredictionError]:
    tracemalloc.start()
    try:
        error = problems_of(path, STORE)
        return tracemalloc.get_traced_memory()[1], error
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.zst"])
def test_a_bomb_is_refused_within_bounded_memory(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(limits, "LEAST_PIXELS", 1)
    monkeypatch.setattr(limits, "STACKED", 1)
    name = f"{CASE.names()[0]}.npy"
    path = write_archive(tmp_path / f"p{suffix}", {name: bytes(2**26)})
    peak, error = peak_of(path)
    assert peak < 2**24
    assert any("declares 67,108,864 bytes" in p.message for p in error.problems)


def test_a_zip_member_holds_more_than_it_declares(tmp_path):
    name = f"{CASE.names()[0]}.npy"
    path = write_archive(tmp_path / "p.zip", {name: bytes(2**26)})
    declared = path.read_bytes().replace(struct.pack("<L", 2**26), struct.pack("<L", 200))
    path.write_bytes(declared)
    peak, error = peak_of(path)
    assert peak < 2**24
    assert error.counts["malformed mask"] == 1


def test_headers_of_a_tar_without_end(tmp_path):
    """A header that holds further fields is read whole by the parser, whatever it declares."""
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 2**26
    path = tmp_path / "p.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf() + bytes(2**26)))
    peak, error = peak_of(path)
    assert peak < 2**24
    assert any("headers of a member are longer" in p.message for p in error.problems)


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_too_many_members(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(limits, "OTHER_MEMBERS", -3 * N - 1)
    path = write_archive(tmp_path / f"p{suffix}", MEMBERS)
    assert f"more than {N - 1} members" in only_problem(path).message


def test_members_that_are_no_plain_files(tmp_path):
    path = write_archive(tmp_path / "p.tar", dict(list(MEMBERS.items())[2:]))
    with tarfile.open(path, "a") as archive:
        for name, kind in ((FIRST, tarfile.SYMTYPE), (list(MEMBERS)[1], tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert problems_of(path, STORE).counts == {"unknown file": 2, "missing": 2}
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr(FIRST, MEMBERS[FIRST])
    assert "another method than deflate" in only_problem(path).message


@pytest.mark.parametrize("suffix", ARCHIVES)
def test_damaged_archives_and_other_files_are_named(tmp_path, suffix):
    path = tmp_path / f"p{suffix}"
    whole = write_archive(path, MEMBERS).read_bytes()
    for content in (b"", b"nothing" * 100, whole[: len(whole) // 2 | 99]):
        path.write_bytes(content)
        error = problems_of(path, STORE)
        assert error.counts["malformed"] + error.counts["malformed mask"] == 1
    # In the middle of a mask, whose own checksum shows it.
    path.write_bytes(whole[:700] + b"\x99" * 9 + whole[709:])
    problems_of(path, STORE)
