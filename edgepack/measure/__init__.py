"""What an artifact costs on a target: bytes, counts, milliseconds, memory."""
