"""edgepack: put a Keras recommender on phones and into browsers, measured and within budget."""

__version__ = "0.1.0"
