"""Several processes on one run: rank 0 runs the pipeline, the other ranks help where a stage asks them to."""
