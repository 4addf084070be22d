"""Batches of texts for a model that only reads: tokenised once, alike in length, bounded by what they cost.

In:  a tokenizer and texts. Out: (rows, padded batch), until every text had its turn; a bar counts texts.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

_TOKENISED_AT_ONCE = 1024


def reading_device() -> torch.device:
    """Where models that only read run: this process's GPU, where it has one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def batch_tokens(device: torch.device) -> int:
    """Padded tokens that make a good batch: what stays in the cache of a CPU (measured), what fills a GPU
    (not)."""
    return 1024 if device.type == "cpu" else 65_536


def padded_batches(
    tokenizer: Any,
    texts: Sequence[str],
    *,
    max_tokens: int,
    tokens: int,
    title: str,
    add_special_tokens: bool = True,
) -> Iterator[tuple[list[int], Any]]:
    """Rows of `texts` with their `BatchEncoding` (input_ids, attention_mask) of at most `tokens` padded
    tokens."""
    ids = _tokenise(tokenizer, texts, max_tokens=max_tokens, add_special_tokens=add_special_tokens)
    yield from batches_of(tokenizer, [{"input_ids": row} for row in ids], tokens=tokens, title=title)


def batches_of(
    tokenizer: Any, rows: Sequence[Mapping[str, np.ndarray]], *, tokens: int, title: str
) -> Iterator[tuple[list[int], Any]]:
    """The same of texts that are tokens already: `input_ids` and what else the tokenizer pads, by row."""
    with tqdm(total=len(rows), desc=title, unit=" texts") as bar:
        for numbers in length_batches([len(row["input_ids"]) for row in rows], tokens=tokens):
            batch = {key: [rows[i][key].tolist() for i in numbers] for key in rows[numbers[0]]}
            yield numbers, tokenizer.pad(batch, return_attention_mask=True, return_tensors="pt")
            bar.update(len(numbers))


def length_batches(lengths: Sequence[int], *, tokens: int) -> Iterator[list[int]]:
    """Rows by falling length, texts x longest <= `tokens` in each batch; a text longer than that is alone.

    Longest first: what does not fit into memory shows at once, and the bar errs to the safe side.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        size = max(1, tokens // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size


def _tokenise(
    tokenizer: Any, texts: Sequence[str], *, max_tokens: int, add_special_tokens: bool
) -> list[np.ndarray]:
    """Token ids by text. In slices and as arrays: the tokenizer's own answer takes about a hundred bytes a
    token."""
    ids: list[np.ndarray] = []
    with tqdm(total=len(texts), desc="tokenise", unit=" texts", leave=False) as bar:
        for start in range(0, len(texts), _TOKENISED_AT_ONCE):
            part = tokenizer(
                list(texts[start : start + _TOKENISED_AT_ONCE]),
                truncation=True,
                max_length=max_tokens,
                add_special_tokens=add_special_tokens,
                return_attention_mask=False,
            )["input_ids"]
            ids += [np.array(row, dtype=np.int32) for row in part]
            bar.update(len(part))
    return ids


def token_limit(tokenizer: Any, config: Any, asked: int) -> int:
    """Tokens that a text may have: those asked for, no more than the model of a config has positions for."""
    of_text = config.get_text_config()
    positions: int = getattr(of_text, "max_position_embeddings", None) or asked
    if "roberta" in of_text.model_type:
        positions -= of_text.pad_token_id + 1  # its positions begin after that of the padding
    return min(asked, positions, int(tokenizer.model_max_length))
