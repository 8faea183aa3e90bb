"""One module per input form; each has `cases(workload)` and yields `Case`s."""
