"""How arrays and pictures are called, `name=…`: what a name says is read, found and compared."""

import zipfile

import numpy as np
import pytest
from helpers import problems_of, sample_case
from hypothesis import given
from hypothesis import strategies as st
from refer_sets import instances, refer_case

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.dataset.sample import encode_png
from refcocom_gpu.predictions.names import Template


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refer")
    return refer_case(folder, instances([["left one", "the left"], ["dog", "a dog"], ["cat"]]))


def named(case, template):
    """Masks by their names; `{}` becomes a text of its own."""
    n = case.dataset.n_examples
    text = template.replace("{}", "any_7 text")
    return {Template(text).filled(case.dataset, k): case.masks[k] for k in range(n)}


def write(path, members):
    if path.suffix == ".npz":
        np.savez(path, **members)
    elif path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file(members, path)
    elif path.suffix == ".pt":
        import torch

        torch.save({name: torch.from_numpy(mask) for name, mask in members.items()}, path)
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, mask in members.items():
                archive.writestr(f"masks/{name}.png", encode_png(np.uint8(255) * mask))
    else:
        path.mkdir()
        for name, mask in members.items():
            (path / f"{name}.png").write_bytes(encode_png(np.uint8(255) * mask))
    return path


FORMATS = [".npz", ".safetensors", ".pt", ".zip", ".folder"]

TEMPLATES = [
    ("mask-{sample_id}_{sentence_idx}", None),
    ("{image_id}_{sample_id}_{sentence_idx}", None),
    ("{sentence_idx} of {sample_id} in {file_name}", "sample"),
    ("{}_{sample_id}_{sentence_idx}", None),
    ("{sample_id}-{}-{sentence_idx}{{v1}}", None),
    ("{sent_id}", "refer"),
    ("{ann_id}_{sentence_idx}", "refer"),
    ("{image_id}.{ref_id}.{sentence_idx}", "refer"),
    ("1{sample_id}_9_{sentence_idx}2", None),
]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(("template", "keys"), TEMPLATES)
def test_every_format(case, tmp_path, suffix, template, keys):
    if "." in template and suffix in (".zip", ".folder"):
        pytest.skip("what follows a dot would be the ending")
    path = write(tmp_path / f"p{suffix}", named(case, template))
    result = case.check(path, name=template, keys=keys)
    assert result.info["options"]["name"] == template


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_a_name_says_beside_the_key_is_compared(case, tmp_path, suffix):
    members = named(case, "{image_id}_{sample_id}_{sentence_idx}")
    first = next(iter(members))
    members[f"9{first}"] = members.pop(first)
    path = write(tmp_path / f"p{suffix}", members)
    error = problems_of(path, case.store, name="{image_id}_{sample_id}_{sentence_idx}")
    assert error.counts == {"bad key": 1}
    assert "image_id is 97, not 7, that of sample_id 40, sentence_idx 0" in str(error)


def test_a_file_is_compared_with_and_without_its_ending(case, tmp_path):
    members = named(case, "{file_name}_{sample_id}_{sentence_idx}")
    for change in (("", ""), (".jpg", "")):
        path = tmp_path / f"p{len(change[0])}.npz"
        np.savez(path, **{name.replace(*change): mask for name, mask in members.items()})
        case.check(path, name="{file_name}_{sample_id}_{sentence_idx}")
    np.savez(
        tmp_path / "w.npz", **{name.replace("COCO_7", "COCO_8"): m for name, m in members.items()}
    )
    error = problems_of(
        tmp_path / "w.npz", case.store, name="{file_name}_{sample_id}_{sentence_idx}"
    )
    assert "file_name is 'COCO_8.jpg', not 'COCO_7.jpg'" in str(error)


def test_a_name_of_another_form(case, tmp_path):
    np.savez(tmp_path / "p.npz", **named(case, "mask-{sample_id}_{sentence_idx}"))
    text = str(problems_of(tmp_path / "p.npz", case.store, missing="zero"))
    assert "a name is {sample_id}_{sentence_idx}, such as 40_0; name=… says" in text
    with pytest.raises(rc.PredictionError, match=r"a name is \{sent_id\}, such as 5000"):
        rc.score(tmp_path / "p.npz", case.store, keys="refer", name="{sent_id}")


REFUSED = [
    ({"name": "{sample}"}, r"\{sample\} is unknown"),
    ({"name": "{sentence}_{sample_id}"}, r"\{sentence\} is unknown"),
    ({"name": "{sample_id}"}, r"takes \{sample_id\} and \{sentence_idx\}"),
    ({"name": "mask"}, "does not find an example"),
    ({"name": "{sent_id}"}, "keys=refer finds them"),
    ({"name": "{ann_id}", "keys": "refer"}, r"takes \{sent_id\} or \{ref_id\} and \{sentence_idx\} or"),
    ({"name": "{sample_id}{sentence_idx}"}, "ambiguous"),
    ({"name": "{sample_id}_1{sentence_idx}"}, "ambiguous"),
    ({"name": "{}{sample_id}_{sentence_idx}"}, "ambiguous"),
    ({"name": "{}_{sample_id}_{}_{sentence_idx}"}, "both stand for any text"),
    ({"name": "{sample_id}_{sample_id}_{sentence_idx}"}, "twice"),
    ({"name": "{sample_id:06}_{sentence_idx}"}, "takes no form"),
    ({"name": "{sample_id}_{sentence_idx"}, "name="),
    ({"name": "{sample_id}_{sentence_idx}", "keys": "order"}, "keys=order is for tables"),
    ({"name": "{sample_id}_{sentence_idx}", "keys": "sentence"}, "keys=sentence is for tables"),
    ({"keys": "sentence"}, "keys=sentence is for tables"),
    ({"keys": "refer"}, r"keys=refer is for tables.*name=\{sent_id\}"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_cannot_be_read_in_one_way_is_refused_before_reading(case, tmp_path, options, message):
    path = tmp_path / "p.npz"
    np.savez(path, x=np.zeros(1))
    with pytest.raises(rc.UsageError, match=message):
        rc.score(path, case.store, **options)


def test_positions(tmp_path):
    dataset = rc.load_dataset("sample", key="image_position")
    store = rc.MaskStore.build(dataset, cache=False)
    template = "{sample_id}-{image_id}_{position}_{sentence_idx}"
    names = [Template(template).filled(dataset, k) for k in range(dataset.n_examples)]
    np.savez(tmp_path / "p.npz", **{name: store.mask(k) for k, name in enumerate(names)})
    assert rc.score(tmp_path / "p.npz", store, name=template).miou == 1
    with pytest.raises(rc.UsageError, match=r"takes \{image_id\} and \{position\} and"):
        rc.score(tmp_path / "p.npz", store, name="{sample_id}_{sentence_idx}")


def test_the_command(tmp_path, capsys):
    sample = sample_case()
    path = tmp_path / "p.npz"
    np.savez(path, **named(sample, "a{sample_id}, {sentence_idx}"))
    command = ["score", str(path), "dataset=sample"]
    assert main([*command, "name=a{sample_id}, {sentence_idx}"]) == 0
    assert main([*command, "name=a{sample_id}, {sentence}"]) == 2
    assert "{sentence} is unknown" in capsys.readouterr().err


NUMBERS = ["sample_id", "sentence_idx", "image_id"]


@given(data=st.data())
def test_a_template_reads_what_it_fills_or_is_refused(data):
    """Whatever stands between placeholders, a name that is read says what was written into it."""
    names = data.draw(st.permutations(NUMBERS)) + data.draw(st.sampled_from([[], [""]]))
    names = data.draw(st.permutations(names))
    literals = data.draw(st.lists(st.text("a_1-{", max_size=2), min_size=5, max_size=5))
    try:
        template = Template(
            "".join(
                lit.replace("{", "{{") + f"{{{n}}}" for lit, n in zip(literals, names, strict=False)
            )
            + "e"
        )
    except rc.UsageError:
        return
    values = {name: data.draw(st.integers(0, 10**12)) for name in NUMBERS}
    text = data.draw(st.text("a_1-{", max_size=4))
    written = "".join(
        lit + str(values.get(n, text)) for lit, n in zip(literals, names, strict=False)
    )
    assert template.read(written + "e") == values
