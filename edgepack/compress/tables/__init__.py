"""Formats of the item table, all made of stock operators: coarse grids, low rank, row scales, item codes."""
