"""The orchestrator of a bundle under ONNX Runtime: texts to token ids, token ids to weights and confidence.

In:  a bundle, a device, a precision. Raises DeviceError or ArtifactError when they do not fit together.
Out: `OnnxSession`, all of whose methods block, release the GIL, and may be called from several threads.
"""

from collections.abc import Collection, Sequence
from importlib import metadata

import numpy as np
import onnxruntime
from preforch_models.bundle import OUTPUTS, TOKENIZER_FILE, Bundle, Precision
from preforch_models.manifest import ArtifactError
from tokenizers import Tokenizer

from preforch_service.settings import Device

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"


class DeviceError(ValueError):
    """The device that was asked for is not there."""


def installed_distributions() -> set[str]:
    """Names of all installed distributions."""
    return {dist.name.lower() for dist in metadata.distributions()}


def check_distributions(installed: Collection[str]) -> None:
    """Raise DeviceError when both builds of ONNX Runtime are there: they overwrite each other's files."""
    both = {"onnxruntime", "onnxruntime-gpu"}
    if both <= set(installed):
        raise DeviceError(
            f"{sorted(both)} are both installed and overwrite each other; uninstall both, install one"
        )


def choose_providers(device: Device, available: Sequence[str], *, precision: Precision = "fp32") -> list[str]:
    """Execution providers for a device.

    Raises DeviceError when CUDA is asked for and absent, or cannot do it.
    """
    if precision == "int8":
        if device == "cuda":
            raise DeviceError(
                "precision 'int8' is for CPUs, CUDA has no operators for it; see --device, --precision"
            )
        return [CPU]
    if device == "cuda" and CUDA not in available:
        raise DeviceError(
            f"device 'cuda' needs {CUDA}, this ONNX Runtime offers {list(available)}; see --device"
        )
    return [CUDA, CPU] if device != "cpu" and CUDA in available else [CPU]


class OnnxSession:
    """One graph and its tokenizer."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: Device,
        threads: int,
        precision: Precision,
        io_binding: bool | None = None,
    ) -> None:
        """`io_binding`: whether inputs and outputs are bound to the device's memory; None: only on CUDA."""
        path = bundle.onnx_file(precision)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Spinning threads take the cores that the engine needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = choose_providers(device, onnxruntime.get_available_providers(), precision=precision)
        self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        # ONNX Runtime drops a provider that fails to load and only logs it.
        if device == "cuda" and self.device != CUDA:
            raise DeviceError(
                f"device 'cuda' failed to start, ONNX Runtime fell back to {self._session.get_providers()}"
            )
        outputs = [output.name for output in self._session.get_outputs()]
        if outputs != list(OUTPUTS):
            raise ArtifactError(
                f"{path}: outputs are {outputs}, needed are {list(OUTPUTS)}; make the bundle again"
            )
        self._bound = self.device == CUDA if io_binding is None else io_binding
        self._pad = bundle.info.pad_token_id
        self._tokenizer = Tokenizer.from_file(str(bundle.path / TOKENIZER_FILE))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(bundle.info.max_tokens)

    @property
    def device(self) -> str:
        """The execution provider in use."""
        return str(self._session.get_providers()[0])

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text, (L,) int64, cut to the bundle's `max_tokens`."""
        return [
            np.array(found.ids, dtype=np.int64) for found in self._tokenizer.encode_batch_fast(list(texts))
        ]

    def forward(self, rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of a batch to (B, K) weights and (B,) confidence."""
        ids_BL = np.full((len(rows), max(map(len, rows))), self._pad, dtype=np.int64)
        mask_BL = np.zeros_like(ids_BL)
        for row, ids in enumerate(rows):
            ids_BL[row, : len(ids)] = ids
            mask_BL[row, : len(ids)] = 1
        feed = {"input_ids": ids_BL, "attention_mask": mask_BL}
        weights_BK, confidence_B = (
            self._forward_bound(feed) if self._bound else self._session.run(OUTPUTS, feed)
        )
        return weights_BK, confidence_B

    def _forward_bound(self, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        """One copy to the device, one back, and no others in between."""
        device = "cuda" if self.device == CUDA else "cpu"
        binding = self._session.io_binding()
        for name, array in feed.items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0)
            binding.bind_ortvalue_input(name, value)
        for name in OUTPUTS:
            binding.bind_output(name, device)
        self._session.run_with_iobinding(binding)
        copied: list[np.ndarray] = binding.copy_outputs_to_cpu()
        return copied
