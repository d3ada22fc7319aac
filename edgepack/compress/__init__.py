"""TF-MOT: pruning and quantization-aware training."""
