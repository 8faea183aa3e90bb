"""A picture and its referred instances in, candidate masks with the proposer's name and score out.

| module | |
|---|---|
| `files` | predictions of any accepted format → the medoid of the masks of an instance's expressions |
| `grabcut` | the original mask and the colours → a mask whose edges follow the colours |
| `sam` | the boxes of the instances → masks of a SAM-family model |
| `checkpoints` | the name of a SAM-family checkpoint → the model, and how it takes a picture |
| `opencv` | the parts of OpenCV that proposers share |

Any object with `name`, `needs_picture`, `identity` and `propose`, as `construct.instances.Proposer` describes them, is
a proposer too. It is pickled to the workers, so it should load large things on first use.

Start reading at `grabcut.py`.
"""
