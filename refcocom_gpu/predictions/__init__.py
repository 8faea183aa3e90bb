"""Prediction files or masks in memory come in; batches of checked predictions whose examples are known go out.

All mistakes of one pass are collected. Start at `read.py`, whose table says which reader takes which format; `keys.py`
holds the rules that all readers share. `writer.py` goes the other way, from masks to a file; `convert.py` goes both.
"""
