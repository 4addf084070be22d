"""From texts to weights: the bundle in force, batches, cache, ONNX Runtime."""
