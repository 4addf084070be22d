"""The bundle's orchestrator in a bare loop over ONNX Runtime: the limit of what a server can do.

In:  texts. Out: weights, (N, K), in the order of the texts. Tokenising counts.
"""

from collections.abc import Sequence

import numpy as np
import onnxruntime
from preforch_models.bundle import ONNX_FILE, TOKENIZER_FILE, Bundle
from tokenizers import Tokenizer

BATCH = 32


class RawLoop:
    """ONNX Runtime with its defaults but for the number of threads."""

    def __init__(self, bundle: Bundle, *, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Where nothing is left to do they would turn on, beside the servers that are measured next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        file = str(bundle.path / ONNX_FILE)
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_file(str(bundle.path / TOKENIZER_FILE))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(bundle.info.max_tokens)
        self._pad = bundle.info.pad_token_id

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        return [len(encoding.ids) for encoding in self._tokenizer.encode_batch(list(texts))]

    def cut(self, text: str) -> str:
        """As much of a text as the encoder reads.

        Other servers cut elsewhere, or later and so compute more.
        """
        encoding = self._tokenizer.encode(text)
        # Special tokens have empty offsets.
        return text[: max(end for _, end in encoding.offsets)] if encoding.overflowing else text

    def run(self, texts: Sequence[str], *, sort: bool) -> np.ndarray:
        """Weights in batches of 32, padded to their longest text.

        `sort`: texts of similar length together.
        """
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i])) if sort else list(range(len(rows)))
        found: list[np.ndarray | None] = [None] * len(rows)
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            ids_BL = np.full((len(chosen), max(len(rows[i]) for i in chosen)), self._pad, dtype=np.int64)
            mask_BL = np.zeros_like(ids_BL)
            for row, i in enumerate(chosen):
                ids_BL[row, : len(rows[i])] = rows[i]
                mask_BL[row, : len(rows[i])] = 1
            (weights_BK,) = self._session.run(["weights"], {"input_ids": ids_BL, "attention_mask": mask_BL})
            for i, weights_K in zip(chosen, weights_BK, strict=True):
                found[i] = weights_K
        return np.array(found)
