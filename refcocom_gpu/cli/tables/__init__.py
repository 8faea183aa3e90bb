"""What a verb made in, a table for a terminal out: a module for each kind.

`lines` holds what they share. Numbers are in percent, and what a number leaves out stands beside it. Start at `result`.
"""
