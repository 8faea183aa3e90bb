"""SAM-family models as proposers: tiny ones with random weights, made here, loaded and asked as published ones are."""

import json
import math
import pickle
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import refcocom_gpu as rc
from refcocom_gpu.construct.image import instances_of
from refcocom_gpu.construct.instances import Candidate, Refused
from refcocom_gpu.construct.propose.checkpoints import Frame, find_checkpoint, open_checkpoint
from refcocom_gpu.construct.propose.sam import SamProposer
from refcocom_gpu.dataset.sample import draw_image
from refcocom_gpu.errors import UsageError
from refcocom_gpu.masks import rle

SIDE = 64


def tiny_sam(hq: bool = False) -> Any:
    from transformers import SamConfig, SamHQConfig, SamHQModel, SamModel

    vision = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIDE, "patch_size": 16,
        "output_channels": 16, "global_attn_indexes": [0, 1], "window_size": 0, "mlp_dim": 16, "num_pos_feats": 8,
    }  # fmt: skip
    prompt = {"hidden_size": 16, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 4}
    decoder = {
        "hidden_size": 16, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "iou_head_hidden_dim": 16,
    }  # fmt: skip
    parts = {"vision_config": vision, "prompt_encoder_config": prompt}
    if hq:
        return SamHQModel(SamHQConfig(**parts, mask_decoder_config={**decoder, "vit_dim": 16}))
    return SamModel(SamConfig(**parts, mask_decoder_config=decoder))


def tiny_sam2() -> Any:
    from transformers import Sam2Config, Sam2Model

    backbone = {
        "model_type": "sam2_hiera_det_model", "hidden_size": 8, "image_size": [SIDE, SIDE],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1, 1, 1, 1],
        "window_size_per_stage": [8, 4, 4, 4], "global_attention_blocks": [3], "num_attention_heads": 1,
        "window_positional_embedding_background_size": [4, 4],
    }  # fmt: skip
    vision = {
        "backbone_config": backbone, "backbone_channel_list": [64, 32, 16, 8], "fpn_hidden_size": 16,
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    }  # fmt: skip
    prompt = {"hidden_size": 16, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 4}
    decoder = {
        "hidden_size": 16, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "iou_head_hidden_dim": 16,
    }  # fmt: skip
    config = Sam2Config(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder
    )
    return Sam2Model(config)


MAKERS = {"sam": tiny_sam, "sam_hq": lambda: tiny_sam(hq=True), "sam2": tiny_sam2}


def pixels_of(candidate: Candidate) -> np.ndarray:
    return rle.decode_ends(candidate.ends, *candidate.size)


@pytest.fixture(scope="module", params=MAKERS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("models") / request.param
    MAKERS[request.param]().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def given() -> tuple[np.ndarray, list[Any]]:
    """A picture that is not square, and its instances."""
    store = rc.MaskStore.build(rc.load_dataset("sample"), cache=False)
    return draw_image(1001), instances_of(store, 0)


def test_it_is_what_the_model_says(checkpoint: Path, given: tuple[np.ndarray, list[Any]]) -> None:
    """By hand: the same square picture, the same box, and the low resolution resized by torch."""
    from torch.nn import functional

    picture, instances = given
    height, width = picture.shape[:2]
    proposer = SamProposer("sam", str(checkpoint), device="cpu", prompts=("box",))
    proposals = [one for (one,) in proposer.propose(picture, instances)]
    model, frame = open_checkpoint(proposer.checkpoint, "cpu")
    letterboxed = checkpoint.name != "sam2"
    inner = (SIDE, SIDE)
    if letterboxed:
        scale = SIDE / max(height, width)
        inner = (math.floor(height * scale + 0.5), math.floor(width * scale + 0.5))
    pixels = frame.pixels(picture)
    assert pixels.shape == (1, 3, SIDE, SIDE)
    assert not pixels[:, :, inner[0] :].any()
    for instance, proposal in zip(instances, proposals, strict=True):
        x, y, w, h = instance.box
        sx, sy = inner[1] / width, inner[0] / height
        box = torch.tensor([[[x * sx, y * sy, (x + w) * sx, (y + h) * sy]]])
        with torch.inference_mode():
            output = model(pixel_values=pixels, input_boxes=box, multimask_output=True)
        best = int(output.iou_scores[0, 0].argmax())
        logits = output.pred_masks[0, 0, best][None, None]
        if letterboxed:
            logits = functional.interpolate(logits, (SIDE, SIDE), mode="bilinear")
            logits = logits[..., : inner[0], : inner[1]]
        expected = functional.interpolate(logits, (height, width), mode="bilinear")[0, 0] > 0
        if not expected.any():
            assert proposal == Refused("sam", "an empty mask")
            continue
        assert isinstance(proposal, Candidate)
        # A logit that is 0 to the last bit may fall on either side.
        assert (pixels_of(proposal) != expected.numpy()).mean() < 1e-3
        assert proposal.score == pytest.approx(
            min(max(output.iou_scores[0, 0, best].item(), 0), 1), abs=1e-5
        )
    assert any(isinstance(one, Candidate) for one in proposals)


def test_instances_at_once_and_alone(
    checkpoint: Path, given: tuple[np.ndarray, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, instances = given
    proposer = SamProposer("sam", str(checkpoint), device="cpu", batch_size=2)
    model, _ = open_checkpoint(proposer.checkpoint, "cpu")
    calls: list[int] = []
    embed = model.get_image_embeddings
    monkeypatch.setattr(model, "get_image_embeddings", lambda p: calls.append(1) or embed(p))
    together = proposer.propose(picture, instances)
    assert len(calls) == 1
    for instance, (one,) in zip(instances, together, strict=True):
        ((alone,),) = proposer.propose(picture, [instance])
        assert type(alone) is type(one)
        if isinstance(one, Candidate):
            assert (pixels_of(alone) != pixels_of(one)).mean() < 1e-3
            assert alone.score == pytest.approx(one.score, abs=1e-5)


def test_positions_are_scaled_as_pictures_are() -> None:
    corner = np.array([[640.0, 480.0], [320.0, 240.0]])
    wide = Frame(1024, True, (0, 0, 0), (1, 1, 1))
    assert wide.points(corner, 480, 640).tolist() == [[1024, 768], [512, 384]]
    square = Frame(1024, False, (0, 0, 0), (1, 1, 1))
    assert square.points(corner, 480, 640).tolist() == [[1024, 1024], [512, 512]]
    tall = Frame(1024, True, (0, 0, 0), (1, 1, 1))
    assert tall.points(corner[:, ::-1].copy(), 640, 480).tolist() == [[768, 1024], [384, 512]]


@pytest.mark.parametrize("where", ["mask_decoder", "vision_encoder"])
def test_weights_that_are_no_numbers(
    checkpoint: Path, given: tuple[np.ndarray, list[Any]], tmp_path: Path, where: str
) -> None:
    model, _ = open_checkpoint(find_checkpoint(str(checkpoint)), "cpu")
    broken = MAKERS[checkpoint.name]()
    broken.load_state_dict(model.state_dict())
    for name, weights in broken.named_parameters():
        if name.startswith(where):
            torch.nn.init.constant_(weights, math.nan)
    broken.save_pretrained(tmp_path / "broken")
    proposals = SamProposer("sam", str(tmp_path / "broken"), device="cpu").propose(*given)
    assert len(proposals) == len(given[1])
    for (one,) in proposals:
        assert isinstance(one, Refused)
        assert "non-finite" in one.reason


def test_identity_is_of_the_weights(checkpoint: Path, tmp_path: Path) -> None:
    identity = SamProposer("sam", str(checkpoint)).identity()
    elsewhere = tmp_path / "elsewhere" / "of another name"
    shutil.copytree(checkpoint, elsewhere)
    assert SamProposer("sam", str(elsewhere)).identity() == identity
    assert json.loads(json.dumps(identity)) == identity
    torch.manual_seed(4)
    MAKERS[checkpoint.name]().save_pretrained(elsewhere)
    assert SamProposer("sam", str(elsewhere)).identity()["weights"] != identity["weights"]


def test_threads_load_one_model(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "fresh"
    shutil.copytree(checkpoint, folder)
    # A relative path is opened wherever a worker runs.
    monkeypatch.chdir(tmp_path)
    relative = find_checkpoint("fresh")
    monkeypatch.chdir("/")
    with ThreadPoolExecutor(4) as pool:
        models = {
            id(model) for model, _ in pool.map(lambda _: open_checkpoint(relative, "cpu"), range(8))
        }
    assert len(models) == 1


def test_an_empty_mask_is_refused(
    checkpoint: Path,
    given: tuple[np.ndarray, list[Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proposer = SamProposer("sam", str(checkpoint), device="cpu")
    model, _ = open_checkpoint(proposer.checkpoint, "cpu")
    forward = model.forward

    def nothing(*arguments: Any, **options: Any) -> Any:
        output = forward(*arguments, **options)
        output.pred_masks = torch.full_like(output.pred_masks, -1.0)
        return output

    monkeypatch.setattr(model, "forward", nothing)
    assert proposer.propose(*given) == [[Refused("sam", "an empty mask")]] * len(given[1])


def test_pickled(checkpoint: Path, given: tuple[np.ndarray, list[Any]]) -> None:
    proposer = SamProposer("sam", str(checkpoint), device="cpu")
    again = pickle.loads(pickle.dumps(proposer))
    for (a,), (b,) in zip(proposer.propose(*given), again.propose(*given), strict=True):
        assert type(a) is type(b)
        if isinstance(a, Candidate):
            np.testing.assert_array_equal(a.ends, b.ends)


def test_what_is_no_such_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import BertConfig

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UsageError, match="no model"):
        SamProposer("sam", str(tmp_path / "nowhere"))
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(UsageError, match="of type 'bert'; the types that propose masks are sam, "):
        SamProposer("sam", str(tmp_path / "bert"))
    with pytest.raises(UsageError, match="prompts must be among"):
        SamProposer("sam", str(tmp_path / "bert"), prompts=("text",))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"pip install 'refcocom-gpu\[construct\]'"):
        SamProposer("sam", str(tmp_path / "bert"))


def test_a_checkpoint_without_its_weights(
    checkpoint: Path, given: tuple[np.ndarray, list[Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "half"
    shutil.copytree(checkpoint, folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="cannot be loaded"):
        SamProposer("sam", str(folder), device="cpu").propose(*given)
