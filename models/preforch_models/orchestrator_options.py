"""What a configuration says of an encoder and its orchestrator.

Names only, so that reading one loads no torch.
"""

from typing import Literal

Pooling = Literal["mean", "cls"]

Layers = tuple[int, ...]
"""Layers whose pooled states are joined, as in `hidden_states`: 0 the embeddings, -1 the last. A retrieval
encoder's last layer keeps what a text is about; the ones before it also know how it is said, which
preferences turn on."""
LAST: Layers = (-1,)

Confidence = Literal["off", "report", "shrink"]
"""Whether familiarity is known: no; yes, and it is the confidence; yes, and it also shrinks weights."""
