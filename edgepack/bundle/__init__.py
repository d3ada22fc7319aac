"""The deterministic archive that ships."""
