"""What f is set beside: the names of all ways to weigh the objectives,
and the features of the one that reads words."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

F = "orchestrator"
UNIFORM = "uniform"
CONSTANT = "best constant"
FITTED_CONSTANT = "constant fitted as f is"
SHUFFLED = "shuffled f"
"""f of another prompt: as varied as f, and blind."""
LINEAR = "tf-idf + linear"
REDUCED_LINEAR = "tf-idf, 300 axes + linear"
ORACLE = "oracle"
"""Knows the true weights and the family."""
CATEGORY_ORACLE = "oracle: knows the category"
TRUE = "true weights"
GOLD = "w*(x)"
"""Fitted to the gold labels of the very prompt."""
RECOMMENDED = "recommended"
"""What a policy is asked for: f(x)."""
NO_WEIGHTS = "no weights"
"""What a policy answers that reads none."""


def word_features(texts: Sequence[str], known_N: np.ndarray, *, min_df: int = 1) -> Any:
    """TF-IDF of words and pairs of words, sparse (N, V). Vocabulary and frequencies come from the `known_N`
    texts alone.

    `known_N`: (N,) bool; `min_df`: texts that a word must be in.
    """
    known = [text for text, is_known in zip(texts, known_N, strict=True) if is_known]
    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=min_df).fit(known).transform(texts)
