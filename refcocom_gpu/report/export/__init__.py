"""Ground truth and predicted masks in, the files of another tool out: `coco` and `fiftyone`; start at `call.py`."""
