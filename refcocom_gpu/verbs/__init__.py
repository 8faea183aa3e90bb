"""One module per verb of the command line that is more than a few lines: its config in, what is printed out."""
