"""The name of a SAM-family checkpoint in; the model of Transformers, and how it takes a picture, out.

The processors of Transformers need torchvision. What they do to a picture is simple, so it is done here.
"""

from __future__ import annotations

import functools
import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.resize import padded_sizes
from refcocom_gpu.utils.files import hash_files
from refcocom_gpu.utils.optional import require
from refcocom_gpu.utils.text import first_line

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Family:
    """The properties shared by the checkpoints of one architecture.

    Attributes:
        cls: Class name in Transformers.
        letterboxed: Whether the picture is resized with its proportions and padded to a square, or stretched to it.
        mean: Per channel, of values in 0…1, for checkpoints that state none.
        std: The same for the standard deviation.
    """

    cls: str
    letterboxed: bool
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


_SAM2 = Family("Sam2Model", letterboxed=False)
_SAM3 = Family("Sam3TrackerModel", letterboxed=False, mean=(0.5,) * 3, std=(0.5,) * 3)

FAMILIES = {
    "sam": Family("SamModel", letterboxed=True),
    "sam_hq": Family("SamHQModel", letterboxed=True),
    "sam2": _SAM2,
    # The published checkpoints are of the whole video model, which contains the picture model.
    "sam2_video": _SAM2,
    "sam3_tracker": _SAM3,
    "sam3_tracker_video": _SAM3,
    "sam3_video": _SAM3,
}
"""Families by the `model_type` in a checkpoint's config."""

_LOADING = threading.Lock()
"""`functools.cache` alone would let several threads each load the model at the same time."""

CONFIGS = ("config.json", "preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that exists and is of a known family. Its weights are not loaded.

    Attributes:
        model: Name on the Hub, or a local folder.
        revision: The commit where it is known, else the requested revision.
        family: The family of its architecture.
    """

    model: str
    revision: str | None
    family: Family

    @property
    def is_local(self) -> bool:
        """Whether it is a local folder."""
        return Path(self.model).is_dir()

    def weights(self) -> str:
        """Return a hash of the weights and configs of a local checkpoint."""
        folder = Path(self.model)
        files = [folder / name for name in CONFIGS if (folder / name).is_file()]
        for ending in ("safetensors", "bin", "index.json"):
            files += folder.glob(f"*.{ending}")
        return hash_files(sorted(set(files)))


@dataclass(frozen=True, slots=True)
class Frame:
    """How a picture is placed in the square input of a model.

    Attributes:
        side: Side of the square, pixels.
        letterboxed: As in `Family`.
        mean: Per channel, of values in 0…1.
        std: The same for the standard deviation.
    """

    side: int
    letterboxed: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def options(self) -> ReadOptions:
        """How logits of the square become a mask of the picture, as in the family's own postprocessing."""
        if self.letterboxed:
            return ReadOptions(letterbox=self.side, resize="sam")
        return ReadOptions()

    def inner(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of the picture in the square.

        >>> Frame(1024, True, (), ()).inner(480, 640)
        (768, 1024)
        """
        if not self.letterboxed:
            return self.side, self.side
        inner_height, inner_width = padded_sizes(height, width, self.side).astype(int).tolist()
        return inner_height, inner_width

    def pixels(self, picture: NDArray[np.uint8]) -> Tensor:
        """Make the input of the model.

        Args:
            picture: [H, W, 3] RGB.

        Returns:
            [1, 3, side, side] float32; padding is 0, the mean colour.
        """
        import torch
        from torch.nn import functional

        channels = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None]
        inner = self.inner(picture.shape[0], picture.shape[1])
        # Eight bits in and out with antialiasing, as Pillow and torchvision resize.
        small = functional.interpolate(channels, inner, mode="bilinear", antialias=True)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        normal = (small.float() / 255 - mean) / std
        return functional.pad(normal, (0, self.side - inner[1], 0, self.side - inner[0]))

    def points(self, xy: NDArray[np.float64], height: int, width: int) -> Tensor:
        """Convert positions in the picture to positions in the square.

        Args:
            xy: [..., 2] x and y in pixels of the picture.
            height: H of the picture.
            width: W.

        Returns:
            [..., 2] float32.
        """
        import torch

        inner_h, inner_w = self.inner(height, width)
        scaled: NDArray[np.float64] = xy * np.array([inner_w / width, inner_h / height])
        return torch.from_numpy(scaled).float()


def find_checkpoint(model: str, revision: str | None = None) -> Checkpoint:
    """Read the config of a checkpoint, without its weights.

    Args:
        model: Name on the Hub, or a local folder.
        revision: Branch, tag or commit of a name on the Hub.

    Raises:
        UsageError: Transformers is not installed, there is no such checkpoint, or its family is unknown.
    """
    transformers = _transformers()
    if Path(model).is_dir():
        # A worker may run in another working folder.
        model = str(Path(model).absolute())
    try:
        config, _ = transformers.PretrainedConfig.get_config_dict(model, revision=revision)
    except (OSError, ValueError) as error:
        raise UsageError(f"no model {model!r}: {first_line(error)}") from None
    kind = config.get("model_type")
    family = FAMILIES.get(kind)
    if family is None:
        raise UsageError(
            f"{model} is a model of type {kind!r}; the types that propose masks are {', '.join(FAMILIES)}"
        )
    if not hasattr(transformers, family.cls):
        raise UsageError(
            f"{model} needs {family.cls}, which transformers {transformers.__version__} does not have"
        )
    return Checkpoint(model, config.get("_commit_hash") or revision, family)


def open_checkpoint(checkpoint: Checkpoint, device: str) -> tuple[Any, Frame]:
    """Load a model, once per process.

    Args:
        checkpoint: From `find_checkpoint`.
        device: `cpu`, `cuda` or `cuda:i`.

    Returns:
        The model, float32 and in eval mode, and how it takes a picture.

    Raises:
        UsageError: The weights are absent, incomplete or of another model, or the checkpoint contradicts itself.
    """
    with _LOADING:
        return _open(checkpoint, device)


@functools.cache
def _open(checkpoint: Checkpoint, device: str) -> tuple[Any, Frame]:
    import torch

    cls = getattr(_transformers(), checkpoint.family.cls)
    try:
        model, about = cls.from_pretrained(
            checkpoint.model,
            revision=checkpoint.revision,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # of the Hub, of safetensors, of torch and of the model's own checks
        raise UsageError(f"{checkpoint.model} cannot be loaded: {first_line(error)}") from error
    if missing := sorted(about["missing_keys"]):
        # Missing weights would be random, and so would the masks.
        raise UsageError(
            f"{checkpoint.model} lacks {len(missing)} weights of {checkpoint.family.cls}, among them {missing[0]}"
        )
    frame = _frame(checkpoint, int(model.config.prompt_encoder_config.image_size))
    return model.eval().requires_grad_(False).to(device), frame


def _frame(checkpoint: Checkpoint, side: int) -> Frame:
    """How the checkpoint takes pictures; what it does not state is as in its family."""
    from transformers.utils import cached_file

    stated: dict[str, Any] = {}
    for name in CONFIGS[1:]:
        try:
            path = cached_file(
                checkpoint.model,
                name,
                revision=checkpoint.revision,
                _raise_exceptions_for_missing_entries=False,
            )
            content = json.loads(Path(path).read_text("utf-8")) if path else {}
        except (OSError, ValueError) as error:
            raise UsageError(f"{checkpoint.model}, {name}: {first_line(error)}") from None
        stated |= content.get("image_processor", content)
    size = stated.get("size", side)
    for pixels in size.values() if isinstance(size, dict) else [size]:
        if pixels not in (side, None):
            raise UsageError(
                f"{checkpoint.model}: its processor makes pictures of {pixels} pixels, its model takes {side}"
            )
    family = checkpoint.family
    mean = stated.get("image_mean", family.mean)
    std = stated.get("image_std", family.std)
    return Frame(side, family.letterboxed, tuple(mean), tuple(std))


def _transformers() -> Any:
    return require("transformers", "SAM-family models need Transformers", "construct")
