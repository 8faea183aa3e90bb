"""Prediction files or masks in memory come in; batches of checked predictions whose examples are known go out.

Every mistake of one pass is collected and none is scored. `writer.py` goes the other way, from masks to a file. Start
at `read.py`, whose table says which reader takes which format; `keys.py` holds the rules that all readers share.
"""
