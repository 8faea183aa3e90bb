"""Integer counts of every example in, scores and what they say out: pure functions of stored counts.

`metrics` holds the formulas and `result` the scores of one set of predictions; start there. `example_table` makes the
table of counts that it stands on, `about` says what it is a score of. `conventions` says how
other evaluators make scores, `under` computes them, `explain` and `reported` say why numbers differ. `slices` scores
kinds of examples apart, `comparison` sets two results against each other, `leaderboard` ranks many, `uncertainty` gives
the intervals of both, `publish` writes scores for the Hub, and `no_target` scores sets whose expressions may have no
target. `causes` says why each example failed, `consistency` how alike the expressions of one mask are scored.
"""
