"""Formats of the item table, of stock operators: coarse grids, low rank, row scales, item codes, hashing."""
