"""A picture and its instances in; masks of a SAM-family model of Transformers out."""

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
from refcocom_gpu.predictions.resize import logit_mask
from refcocom_gpu.utils.devices import resolve_device

PROMPTS = ("box", "points")


class SamProposer:
    """Proposes, for each instance, the mask with the highest predicted IoU that a model returns for its prompts.

    Args:
        name: Unique among the proposers of a construction.
        model: Name on the Hub, or a local folder.
        revision: Branch, tag or commit of a name on the Hub.
        device: `auto`, `cpu`, `cuda` or `cuda:i`.
        prompts: `box`, `points` (the pixel deepest inside the original mask), or both together.
        batch_size: Number of instances of a picture in one call of the model.

    Raises:
        UsageError: An option is unknown, or there is no such model.
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

        checkpoint = self.checkpoint
        return {
            "kind": "sam",
            "class": checkpoint.family.cls,
            # A local model is identified by its weights, not its folder, so that a run can continue elsewhere.
            "model": None if checkpoint.is_local else checkpoint.model,
            "revision": checkpoint.revision,
            "weights": checkpoint.weights() if checkpoint.is_local else None,
            "prompts": list(self.prompts),
            "transformers": str(transformers.__version__),
        }

    def propose(
        self, picture: NDArray[np.uint8] | None, instances: Sequence[Instance]
    ) -> list[Proposals]:
        """Return one proposal for each instance, scored by the IoU that the model predicts.

        Args:
            picture: [H, W, 3] RGB.
            instances: Of this picture.

        Raises:
            UsageError: `picture` is None, or the model cannot be loaded.
        """
        import torch

        if picture is None:
            raise UsageError(f"{self.name} needs the pictures")
        device = resolve_device(self.device)
        model, frame = open_checkpoint(self.checkpoint, device)
        proposals: list[Proposals] = []
        with torch.inference_mode():
            features = model.get_image_embeddings(frame.pixels(picture).to(device))
            embeddings = {"image_embeddings": features}
            if isinstance(features, tuple):  # SAM-HQ uses earlier layers too
                embeddings = {
                    "image_embeddings": features[0],
                    "intermediate_embeddings": features[1],
                }
            for first in range(0, len(instances), self.batch_size):
                batch = instances[first : first + self.batch_size]
                prompts = {k: v.to(device) for k, v in self._prompts(frame, batch).items()}
                output = model(**embeddings, **prompts, multimask_output=True)
                for k, instance in enumerate(batch):
                    logits, scores = output.pred_masks[0, k], output.iou_scores[0, k]
                    proposals.append([self._choose(logits, scores, frame, instance)])
        return proposals

    def _prompts(self, frame: Frame, instances: Sequence[Instance]) -> dict[str, Any]:
        """The inputs of the model: boxes [1, B, 4] and points [1, B, 1, 2] in its square."""
        import torch

        height, width = instances[0].mask.shape
        n, prompts = len(instances), {}
        if "box" in self.prompts:
            boxes = [[(x, y), (x + w, y + h)] for x, y, w, h in (i.box for i in instances)]
            corners = frame.points(np.array(boxes, np.float64), height, width)
            prompts["input_boxes"] = corners.reshape(1, n, 4)
        if "points" in self.prompts:
            points = np.array([deepest_point(i.mask) for i in instances], np.float64)
            prompts["input_points"] = frame.points(points, height, width).reshape(1, n, 1, 2)
            prompts["input_labels"] = torch.ones((1, n, 1), dtype=torch.int32)
        return prompts

    def _choose(
        self, logits: Any, scores: Any, frame: Frame, instance: Instance
    ) -> Candidate | Refused:
        """Return the mask with the highest score, of [m, h, w] logits with [m] scores."""
        predicted = scores.tolist()
        if not all(map(math.isfinite, predicted)):
            return Refused(self.name, "non-finite scores")
        best = int(np.argmax(predicted))
        if not logits[best].isfinite().all():
            return Refused(self.name, "non-finite logits")
        height, width = instance.mask.shape
        mask = logit_mask(logits[best], height, width, frame.options).cpu().numpy()
        if not mask.any():
            return Refused(self.name, "an empty mask")
        return Candidate.from_mask(self.name, mask, min(max(predicted[best], 0.0), 1.0))
