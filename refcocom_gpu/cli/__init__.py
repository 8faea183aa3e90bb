"""The words of a command line come in; tables or JSON on stdout, files and an exit code go out.

Start at `main.py`, which runs a verb. `config.py` declares every key of every verb, `overrides.py` parses the words,
and each module of `verbs/` does the work of one verb.
"""
