"""Keeps memory small and pauses short.

ONNX Runtime frees a graph in pieces that glibc keeps: without this, a gateway grows by tens of MiB with every
reload of its bundle, though nothing of the old one is left.
"""

import ctypes
import gc


def release_freed_memory() -> None:
    """Trim the heap, where the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def freeze_gc() -> None:
    """Take what is there, modules above all, out of the garbage collector's sight.

    It stays as long as the process.

    A full collection, which every stream waits for, then looks at requests alone.
    """
    gc.collect()
    gc.freeze()
