"""Build a refined dataset from an original one: propose masks, agree on one, decide what stays, write the set.

| module | |
|---|---|
| `rules` | the numbers that decide, each with its default and its meaning |
| `instances` | the types that the stages exchange, and the interface of a proposer |
| `propose/` | a picture and its instances → candidate masks |
| `boxes` | masks and records → boxes, and their IoU |
| `agree`, `refine` | candidates → one mask of them, without specks |
| `filter` | expressions → the harmful words and labels in them |
| `image` | one image through the stages above → its measurements |
| `measurements` | what is measured of an image, its instances, proposals and expressions |
| `parts` | measurements kept on disk, so that an interrupted construction continues |
| `keep` | measurements and rules → what stays, and why the rest is removed |
| `write`, `audit`, `card`, `sheet` | decisions → dataset, tables, dataset card, contact sheet |
| `folder` | all of these → the folder of the refined set, replaced as a whole |
| `run` | the whole construction |
| `call` | `rc.construct(…)` from Python; this package may itself be called |
| `judge`, `curves` | an audit and exact masks → how much closer the refined masks are; the same as a plot |
| `truth_noise` | two versions of a set's masks → how far they differ, and what that does to scores and ranks |

The method follows what is published about how RefCOCO-M was made. Its models and thresholds are not published; those
here are our own choices. Start reading at `construct` in `run.py`.
"""

from refcocom_gpu.utils.calls import make_callable

make_callable(__name__, "call")
