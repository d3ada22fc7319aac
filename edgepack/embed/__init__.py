"""Writes a verified bundle into an app: one folder of edgepack's own, and nothing beside it."""
