"""Recommends weights for texts with ONNX Runtime.

In:  texts as `conversation_text` makes them. Out: one `Recommendation` per text.
"""

import asyncio
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from typing import Protocol

import numpy as np
import onnxruntime
from preforch_models.bundle import ONNX_FILE, OUTPUTS, TOKENIZER_FILE, Bundle
from preforch_models.manifest import ArtifactError
from preforch_models.weights import Weights, normalise
from tokenizers import Tokenizer

from preforch_service.settings import Device

BATCH = 32
CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"


class DeviceError(ValueError):
    """The device that was asked for is not there."""


@dataclass(frozen=True)
class Recommendation:
    """The orchestrator's answer for one text: weights by objective name, and how sure it is, 0 to 1."""

    weights: Weights
    confidence: float


class Recommender(Protocol):
    """What the gateway needs of an orchestrator."""

    async def recommend(self, texts: Sequence[str]) -> list[Recommendation]:
        """An answer for each text. May raise anything; the gateway then uses fallback weights."""
        ...

    def close(self) -> None:
        """Nothing is asked any more; free what answering takes."""
        ...


def installed_distributions() -> set[str]:
    """Names of all installed distributions."""
    return {dist.name.lower() for dist in metadata.distributions()}


def check_distributions(installed: Collection[str]) -> None:
    """Raise DeviceError when both builds of ONNX Runtime are there: they overwrite each other's files."""
    both = {"onnxruntime", "onnxruntime-gpu"}
    if both <= set(installed):
        raise DeviceError(f"{sorted(both)} are both installed and overwrite each other; uninstall both, install one")


def choose_providers(device: Device, available: Sequence[str]) -> list[str]:
    """Execution providers for a device. Raises DeviceError when CUDA is asked for and absent."""
    if device == "cuda" and CUDA not in available:
        raise DeviceError(f"device 'cuda' needs {CUDA}, this ONNX Runtime offers {list(available)}; see --device")
    return [CUDA, CPU] if device != "cpu" and CUDA in available else [CPU]


class OnnxRecommender:
    """The orchestrator of a bundle. `run` may be called from several threads."""

    def __init__(self, bundle: Bundle, *, device: Device = "auto", threads: int = 2) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Spinning threads take the cores that the engine needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(bundle.path / ONNX_FILE),
            options,
            providers=choose_providers(device, onnxruntime.get_available_providers()),
        )
        # ONNX Runtime drops a provider that fails to load and only logs it.
        if device == "cuda" and self._session.get_providers()[0] != CUDA:
            raise DeviceError(
                f"device 'cuda' failed to start, ONNX Runtime fell back to {self._session.get_providers()}"
            )
        outputs = [output.name for output in self._session.get_outputs()]
        if outputs != list(OUTPUTS):
            raise ArtifactError(
                f"{bundle.path / ONNX_FILE}: outputs are {outputs}, needed are {list(OUTPUTS)}; make the bundle again"
            )
        self._names = bundle.names
        self._pad = bundle.info.pad_token_id
        self._tokenizer = Tokenizer.from_file(str(bundle.path / TOKENIZER_FILE))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(bundle.info.max_tokens)
        self._executor = ThreadPoolExecutor(max_workers=2, thread_name_prefix="orchestrator")

    @property
    def device(self) -> str:
        """The execution provider in use."""
        return str(self._session.get_providers()[0])

    def run(self, texts: Sequence[str]) -> list[Recommendation]:
        """An answer for each text, in batches of texts of similar length."""
        encoded = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        found: dict[int, Recommendation] = {}
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            weights_BK, confidence_B = self._forward([encoded[i] for i in chosen])
            for i, weights_K, confidence in zip(chosen, weights_BK.tolist(), confidence_B.tolist(), strict=True):
                found[i] = Recommendation(normalise(weights_K, self._names), confidence)
        return [found[i] for i in range(len(encoded))]

    def _forward(self, batch: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids to (B, K) weights and (B,) confidence."""
        ids_BL = np.full((len(batch), max(map(len, batch))), self._pad, dtype=np.int64)
        mask_BL = np.zeros_like(ids_BL)
        for row, ids in enumerate(batch):
            ids_BL[row, : len(ids)] = ids
            mask_BL[row, : len(ids)] = 1
        weights_BK, confidence_B = self._session.run(OUTPUTS, {"input_ids": ids_BL, "attention_mask": mask_BL})
        return weights_BK, confidence_B

    async def recommend(self, texts: Sequence[str]) -> list[Recommendation]:
        """`run` in a thread; ONNX Runtime and tokenizers release the GIL."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self.run, texts)

    def close(self) -> None:
        """Stop the threads, without waiting for texts that nobody waits for any more."""
        self._executor.shutdown(wait=False, cancel_futures=True)
