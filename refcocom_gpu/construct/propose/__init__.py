"""A picture and its referred instances in, candidate masks with their proposer's name and score out.

| module | |
|---|---|
| `files` | predictions of any accepted format → the medoid of an instance's expressions |
| `grabcut` | the original mask and the colours → a mask whose edges follow them |
| `checkpoints` | the name of a SAM-family checkpoint → the model, and how it sees a picture |

Any object with `name`, `needs_picture`, `identity` and `propose`, as `construct.instances.Proposer` states them, is a
proposer too. It is pickled to the workers, so it opens what is heavy when it is first asked.
"""

from __future__ import annotations

from refcocom_gpu.construct.propose.files import FileProposer as FileProposer
from refcocom_gpu.construct.propose.grabcut import GrabCutProposer as GrabCutProposer
from refcocom_gpu.construct.propose.sam import SamProposer as SamProposer
