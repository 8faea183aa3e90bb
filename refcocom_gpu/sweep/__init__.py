"""Many prediction files come in; counts of each, all per-example rows and a leaderboard go out.

A sweep that was killed goes on when it is run again. Start at `run`.

| module | |
|---|---|
| `inputs` | paths, globs, addresses or a manifest → one `Item` per set of predictions |
| `contents` | a file or an address → a local file, and a hash of what it holds |
| `task` | an item → a `FileResult`, a pure function that every engine runs |
| `ledger` | results kept by the hash of all that decides them, whole or not at all |
| `per_example` | results → a partitioned Parquet dataset |
| `run` | the loop that joins these to an engine |
| `call` | `rc.sweep(…)` from Python; this package may itself be called |
"""

from refcocom_gpu.utils.calls import make_callable

make_callable(__name__, "call")
