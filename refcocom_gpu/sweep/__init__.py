"""Many prediction files in; counts of each, all per-example rows and a leaderboard out. Stop and restart at any time.

| module | |
|---|---|
| `inputs` | paths, globs, addresses or a manifest → one `Item` per set of predictions |
| `contents` | a file or an address → a local file, and a hash of what it holds |
| `task` | an item → a `FileResult`, a pure function that every engine runs |
| `ledger` | results kept by the hash of all that decides them, whole or not at all |
| `per_example` | results → a partitioned Parquet dataset |
| `run` | the loop that joins these to an engine |
"""

from __future__ import annotations

from refcocom_gpu.sweep.inputs import read_inputs as read_inputs
from refcocom_gpu.sweep.item import Item as Item
from refcocom_gpu.sweep.run import Outcome as Outcome
from refcocom_gpu.sweep.run import run_sweep as run_sweep
from refcocom_gpu.sweep.task import FileResult as FileResult
from refcocom_gpu.sweep.task import Options as Options
from refcocom_gpu.sweep.task import score_file as score_file
