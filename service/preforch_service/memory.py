"""Gives freed memory back to the system.

ONNX Runtime frees a graph in pieces that glibc keeps: without this, a gateway grows by tens of MiB with every reload of
its bundle, though nothing of the old one is left.
"""

import ctypes


def release_freed_memory() -> None:
    """Trim the heap, where the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
