"""A pad token for models that come without one, never the token that ends a text.

Where padding equals the end, a loss leaves the end out with the padding, and a sequence classifier, which
reads the last token that is not padding, reads the one before the end.
"""

from transformers import PreTrainedModel, PreTrainedTokenizerBase

PAD = "<|endoftext|>"
_KNOWN = ("<|finetune_right_pad_id|>", "<pad>", "[PAD]", "<|pad|>", PAD)


def separate_pad(tokenizer: PreTrainedTokenizerBase, *, end: str | None) -> None:
    """Give the tokenizer a pad token that is not `end`: its own, one that it keeps for this, or a new one."""
    if tokenizer.pad_token is not None and tokenizer.pad_token != end:
        return
    known = tokenizer.get_vocab()
    kept = [token for token in _KNOWN if token in known and token != end]
    tokenizer.add_special_tokens({"pad_token": kept[0] if kept else "<pad>"})


def make_room(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Grow the embeddings where the tokenizer has ids beyond them. Many models have rows to spare."""
    needed = max(tokenizer.get_vocab().values()) + 1
    if needed > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(needed, mean_resizing=False)
