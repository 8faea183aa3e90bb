"""The words of a command line come in; tables or JSON on stdout, files and an exit code go out.

Start at `main.py`, which runs a verb. `config.py` declares every key of every verb; `help.py` and `completion.py` print
them. `overrides.py` parses the words, `settings.py` the files of keys that they name, and `resolved.py` writes such a
file. Each module of `verbs/` does the work of one verb.
"""
