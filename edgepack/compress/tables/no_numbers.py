"""What layers of edgepack's own tell whoever prunes, clusters or rounds weights."""

from typing import Any


class NoNumbers:
    """There is nothing to take here: the layer has no weights, or codes, which are no numbers."""

    def get_prunable_weights(self) -> list[Any]:
        """Return nothing."""
        return []

    def get_clusterable_weights(self) -> list[Any]:
        """Return nothing."""
        return []

    def get_quantizable_weights(self) -> list[str]:
        """Return nothing."""
        return []
