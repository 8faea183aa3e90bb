"""Masks as text: COCO RLE or polygons in, validated run ends or compressed strings out.

Start at `rle`, which checks, parses and writes whole columns of masks. `polygons` turns polygons into the same RLE.
"""
