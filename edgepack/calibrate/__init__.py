"""From counts and published latencies to a device model: what `edgepack calibrate` does."""
