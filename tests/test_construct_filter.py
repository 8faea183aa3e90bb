"""Expressions: words of the user's list whatever their form, and a text classifier that is really loaded and run."""

import json
import math
from pathlib import Path

import pytest

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.construct.filter import HarmFilter, Words, read_words
from refcocom_gpu.errors import DataError, UsageError

LABELS = ("fine", "harmful")


@pytest.mark.parametrize(
    ("word", "sentence", "found"),
    [
        ("hat", "the man in a hat", True),
        ("hat", "the man in a HAT.", True),
        ("hat", "that chair", False),
        ("hat", "hats", False),
        ("red hat", "a red-hat man", True),
        ("Straße", "die STRASSE", True),
        ("ﬁre", "fire truck", True),  # a ligature, composed by NFKC
        ("café", "cafe\u0301 table", True),
        ("人", "人 left", True),
    ],
)
def test_words(word: str, sentence: str, found: bool) -> None:
    assert Words((word,)).find(sentence) == (word if found else "")


def test_a_file_of_words(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeff# a comment\nhat\n\n  red shirt \nhat\n".encode())
    assert read_words(path).words == ("hat", "red shirt")
    for content, message in (
        (b"", "holds no word"),
        (b"...\n", "no letter"),
        (b"\xff\xfe", "UTF-8"),
    ):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=message):
            read_words(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_words(tmp_path / "nowhere")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("classifier"))


def save_classifier(folder: Path, *, broken: bool = False) -> Path:
    """A tiny model whose answer is decided by the word `ugly`: its embedding alone reaches the head."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ugly", "man", "the"]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=32,
        id2label=dict(enumerate(LABELS)),
        label2id={label: k for k, label in enumerate(LABELS)},
    )
    torch.manual_seed(0)
    model = BertForSequenceClassification(config)
    if broken:
        torch.nn.init.constant_(model.classifier.weight, math.nan)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_classifier_is_what_its_model_says(classifier: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    sentences = ["the man", "the ugly man", "ugly ugly"]
    model = AutoModelForSequenceClassification.from_pretrained(classifier).eval()
    tokenizer = AutoTokenizer.from_pretrained(classifier)
    with torch.inference_mode():
        logits = [model(**tokenizer(text, return_tensors="pt")).logits[0] for text in sentences]
    expected = [torch.softmax(one, 0)[1].item() for one in logits]
    harm_filter = HarmFilter(Words(("man",)), str(classifier), None, ("harmful",))
    harm_filter.check()
    verdicts = harm_filter.find(sentences)
    assert [word for word, _, _ in verdicts] == ["man", "man", ""]
    assert [label for _, label, _ in verdicts] == ["harmful"] * 3
    assert [score for _, _, score in verdicts] == pytest.approx(expected, abs=1e-5)
    assert harm_filter.find([]) == []
    both = HarmFilter(Words(), str(classifier), None, LABELS).find(sentences)
    assert [score for _, _, score in both] == pytest.approx([max(e, 1 - e) for e in expected], abs=1e-5)  # fmt: skip
    assert json.dumps(harm_filter.identity())


def test_labels_must_be_named(classifier: Path) -> None:
    with pytest.raises(UsageError, match=r"classifier_labels=\[…\], from fine, harmful"):
        HarmFilter(Words(), str(classifier)).check()
    with pytest.raises(UsageError, match="has no label 'toxic'"):
        HarmFilter(Words(), str(classifier), None, ("toxic",)).check()


def test_a_model_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UsageError, match="cannot be loaded"):
        HarmFilter(Words(), str(tmp_path / "nowhere"), None, ("x",)).check()


def test_scores_that_are_no_numbers(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, broken=True)
    with pytest.raises(DataError, match="scores that are not finite, for 'the man'"):
        HarmFilter(Words(), str(folder), None, ("harmful",)).find(["the man"])


def test_through_the_command(classifier: Path, tmp_path: Path) -> None:
    words = [
        "construct", "[sample,sample-coarse]", "dataset=sample", "pictures=none", "confidence=0", "original_iou=0",
        f"classifier={classifier}", "classifier_labels=[harmful]", "quiet=true",
    ]  # fmt: skip
    kept = []
    for harm in (0.0, 0.5, 1.0):
        out = tmp_path / "out"
        assert main([*words, f"output_dir={out}", f"harm={harm}"]) == 0
        summary = json.loads((out / "construct.json").read_text())
        kept.append(summary["counts"]["expressions"]["kept"])
        removed = summary["counts"]["expressions"]["removed"]
        assert removed["classifier"] + removed["instance"] + kept[-1] == 297
    assert kept[0] == 0
    assert kept[2] == rc.load_dataset("sample").n_examples
    assert "harmful labels harmful" in (tmp_path / "out" / "README.md").read_text()
