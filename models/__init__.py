"""Recommender families: one module each, mapped into the package as `edgepack.models`."""
