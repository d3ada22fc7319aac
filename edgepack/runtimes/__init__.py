"""One way to run an artifact per engine: rows in, scores out."""
