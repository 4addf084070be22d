"""Memory that this process no longer needs, given back where another process can take it."""

import gc

import torch


def free_memory() -> None:
    """Collect what only cycles hold, models and trainers among it, and empty a GPU's cache of free blocks."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
