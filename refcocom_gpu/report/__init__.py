"""Results in, pages and exports for people and other tools out. Nothing is counted here; start at `export/call.py`."""
