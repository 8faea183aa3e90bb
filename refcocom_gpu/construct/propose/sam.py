"""A picture and the boxes of its instances in, masks of a SAM-family model of Transformers out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.construct.instances import Candidate, Instance, Proposals, Refused
from refcocom_gpu.construct.propose.checkpoints import Frame, find_checkpoint, open_checkpoint
from refcocom_gpu.construct.propose.opencv import deepest_point, open_cv
from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.resize import finite_range, logit_mask
from refcocom_gpu.utils.devices import resolve_device

PROMPTS = ("box", "points")


class SamProposer:
    """Proposes, for each instance, the mask of highest predicted IoU that a model finds at its prompts.

    Args:
        name: Unique among the proposers of a construction.
        model: Name on the Hub, or a local folder.
        revision: Branch, tag or commit of a name on the Hub.
        device: `auto`, `cpu`, `cuda` or `cuda:i`.
        prompts: `box`, `points` (the pixel deepest inside the original mask), or both, given together.
        batch_size: Instances of a picture asked for at a time.

    Raises:
        UsageError: For an option that is not known, or a model that is not there.
    """

    needs_picture = True

    def __init__(
        self,
        name: str,
        model: str,
        revision: str | None = None,
        device: str = "auto",
        prompts: Sequence[str] = PROMPTS,
        batch_size: int = 16,
    ) -> None:
        if not prompts or not set(prompts) <= set(PROMPTS):
            raise UsageError(f"prompts must be among {', '.join(PROMPTS)}, not {list(prompts)}")
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {batch_size}")
        if "points" in prompts:
            open_cv()
        self.name, self.device, self.batch_size = name, device, batch_size
        self.prompts = tuple(sorted(set(prompts)))
        self.checkpoint = find_checkpoint(str(model), revision)

    def identity(self) -> dict[str, Any]:
        """The class, the model, its commit or a hash of its weights, the prompts and the version of Transformers."""
        import transformers

        here = self.checkpoint
        return {
            "kind": "sam",
            "class": here.family.cls,
            # Not the folder a local one lies in: a run may go on elsewhere, and its weights say what it is.
            "model": None if here.is_local else here.model,
            "revision": here.revision,
            "weights": here.weights() if here.is_local else None,
            "prompts": list(self.prompts),
            "transformers": str(transformers.__version__),
        }

    def propose(
        self, picture: NDArray[np.uint8] | None, instances: Sequence[Instance]
    ) -> list[Proposals]:
        """One proposal for each instance, scored by the IoU the model predicts.

        Args:
            picture: [H, W, 3] RGB.
            instances: Of this picture.

        Raises:
            UsageError: Without a picture, or when the model cannot be loaded.
        """
        import torch

        if picture is None:
            raise UsageError(f"{self.name} needs the pictures")
        device = resolve_device(self.device)
        model, frame = open_checkpoint(self.checkpoint, device)
        found: list[Proposals] = []
        with torch.inference_mode():
            seen = model.get_image_embeddings(frame.pixels(picture).to(device))
            known = {"image_embeddings": seen}
            if isinstance(seen, tuple):  # SAM-HQ looks at earlier layers too
                known = {"image_embeddings": seen[0], "intermediate_embeddings": seen[1]}
            for first in range(0, len(instances), self.batch_size):
                some = instances[first : first + self.batch_size]
                asked = {k: v.to(device) for k, v in self._prompts(frame, some).items()}
                said = model(**known, **asked, multimask_output=True)
                for k, instance in enumerate(some):
                    proposal = self._choose(
                        said.pred_masks[0, k], said.iou_scores[0, k], frame, instance
                    )
                    found.append([proposal])
        return found

    def _prompts(self, frame: Frame, instances: Sequence[Instance]) -> dict[str, Any]:
        """Boxes [1, B, 4] and points [1, B, 1, 2] in the model's square."""
        import torch

        height, width = instances[0].mask.shape
        n, asked = len(instances), {}
        if "box" in self.prompts:
            boxes = [[(x, y), (x + w, y + h)] for x, y, w, h in (i.box for i in instances)]
            corners = frame.points(np.array(boxes, np.float64), height, width)
            asked["input_boxes"] = corners.reshape(1, n, 4)
        if "points" in self.prompts:
            points = np.array([deepest_point(i.mask) for i in instances], np.float64)
            asked["input_points"] = frame.points(points, height, width).reshape(1, n, 1, 2)
            asked["input_labels"] = torch.ones((1, n, 1), dtype=torch.int32)
        return asked

    def _choose(
        self, logits: Any, scores: Any, frame: Frame, instance: Instance
    ) -> Candidate | Refused:
        """The best of [m, h, w] logits with [m] scores."""
        predicted = scores.tolist()
        if not all(map(math.isfinite, predicted)):
            return Refused(self.name, "non-finite scores")
        best = int(np.argmax(predicted))
        if finite_range(logits[best]) is None:
            return Refused(self.name, "non-finite logits")
        height, width = instance.mask.shape
        mask = logit_mask(logits[best], height, width, frame.options).cpu().numpy()
        if not mask.any():
            return Refused(self.name, "an empty mask")
        return Candidate.from_mask(self.name, mask, min(max(predicted[best], 0.0), 1.0))
