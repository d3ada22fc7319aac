"""Ranking metrics, the paired bootstrap, overlap."""
