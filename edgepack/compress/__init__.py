"""Makes a trained model smaller: pruning, then quantization-aware training, both with TF-MOT."""
