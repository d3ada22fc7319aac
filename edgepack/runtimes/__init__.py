"""One way to run an artifact per engine: histories in, scores out."""
