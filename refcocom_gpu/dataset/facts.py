"""The names of what may be said of an example to find it. This file imports nothing: `--help` needs the names alone."""

HOLDERS = ("sample_id", "image_id", "file_name")
"""What may stand beside a sentence, the most exact first."""

REFER_IDS = ("sent_id", "ref_id", "ann_id")
"""The ids of the original sets, the most exact first: of a sentence, a reference, and an annotation."""

SAMPLE_IDS = ("sample_id", "ref_id", "ann_id")
"""What names a sample; several samples may have the same `ann_id`."""

FACTS = ("sample_id", "sentence_idx", "image_id", "file_name", "position", *REFER_IDS, "sentence")
"""What may be said of an example to name it, or to be compared."""
