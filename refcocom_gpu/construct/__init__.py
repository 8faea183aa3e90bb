"""An original referring set in, a refined one out: propose, agree, keep, filter, write.

| module | |
|---|---|
| `instances` | what the stages hand to each other, and what a proposer is |
| `propose/` | a picture and its instances → candidate masks |
| `boxes` | masks and records → boxes, and their IoU |
| `agree`, `refine` | candidates → what they agree on, without specks |
| `filter` | expressions → what is harmful about them |
| `image`, `parts` | one image through all of these; kept, so that a construction goes on |
| `keep` | what was found → what stays, and why the rest goes |
| `write`, `audit`, `sheet` | decisions → dataset, tables, pictures |
| `judge` | an audit and exact masks → how much closer, against the share kept |

The method follows what is published of RefCOCO-M's making. Its models and thresholds are not published; those here are
choices of ours.
"""

from __future__ import annotations

from refcocom_gpu.construct.filter import HarmFilter as HarmFilter
from refcocom_gpu.construct.filter import Words as Words
from refcocom_gpu.construct.filter import read_words as read_words
from refcocom_gpu.construct.instances import Candidate as Candidate
from refcocom_gpu.construct.instances import Instance as Instance
from refcocom_gpu.construct.instances import Proposer as Proposer
from refcocom_gpu.construct.instances import Refused as Refused
from refcocom_gpu.construct.rules import Rules as Rules
from refcocom_gpu.construct.run import Construction as Construction
from refcocom_gpu.construct.run import construct as construct
