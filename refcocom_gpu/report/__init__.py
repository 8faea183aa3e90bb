"""Results, comparisons and leaderboards in, what people look at out: pages and plots. Start at `plot`."""
