"""What a verb made in, tables for a terminal out: a module for each kind."""
