"""What tests of models' answers build on: the sample, pictures in base64, drawn polygons, JSON in prose."""

import base64
import io
import json

import cv2
import numpy as np
from helpers import sample_case
from PIL import Image
from pycocotools import mask as coco

CASE = sample_case()
STORE, DATASET = CASE.store, CASE.dataset
H, W = 60, 90
DATA_URL = "data:image/png;base64,"


def size_of(k):
    sample = DATASET.example_sample[k]
    return int(DATASET.heights[sample]), int(DATASET.widths[sample])


def key_of(k):
    return dict(zip(DATASET.example_key_fields, DATASET.key_of(k), strict=True))


def drawn(polygons, height=H, width=W):
    """By pycocotools alone; polygons in pixels."""
    flat = [np.asarray(p, float).ravel().tolist() for p in polygons]
    return coco.decode(coco.merge(coco.frPyObjects(flat, height, width))).astype(bool)


def png(array, mode=None, kind="PNG"):
    file = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def soft(height, width, seed=0):
    """A map of probabilities, 8-bit."""
    noise = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 4)
    low, high = blurred.min(), blurred.max()
    return np.rint((blurred - low) / (high - low) * 255).astype(np.uint8)


def fenced(value, before="Here are the masks:", after="Anything else?"):
    return f"{before}\n```json\n{json.dumps(value)}\n```\n{after}"


def only(candidates):
    (candidate,) = candidates
    assert candidate.mask.dtype == bool
    return candidate.mask


def gemini_entry(box, mask, **more):
    return {"box_2d": box, "mask": mask, "label": "cup", **more}


FOUR = [[100, 300], [100, 800], [500, 700], [400, 320]]
"""Points in thousandths; taken as [y, x] they fill the box below."""

BOX = [100, 300, 500, 800]
