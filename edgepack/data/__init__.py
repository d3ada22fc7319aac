"""Interaction logs in: read, clean or refuse, split; the synthetic shop; public sets by name."""
