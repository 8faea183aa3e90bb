"""Integer counts of every example in, scores and what they say out: pure functions of stored counts.

`metrics` holds the formulas and `result` the scores of one set of predictions; start there. `slices` scores kinds of
examples apart, `comparison` sets two results against each other, `leaderboard` ranks many, `uncertainty` gives the
intervals of both, and `publish` writes scores for the Hub.
"""
