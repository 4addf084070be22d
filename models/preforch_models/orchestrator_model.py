"""The orchestrator f(x): encoder, linear head, softmax (paper, section 3.1). Input text: `conversation_text`.

A Hugging Face model: `OrchestratorModel.from_pretrained(folder)`, `save_pretrained`.

Departure from the paper, off in its preset: how familiar a prompt is, and shrinkage towards the best constant
for those that are not (`Familiarity`, `OrchestratorModel.serve`).
"""

import math
from collections.abc import Sequence
from os import PathLike
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from preforch_models.encoder import check_layers, encode
from preforch_models.manifest import ArtifactError
from preforch_models.orchestrator_options import LAST, Confidence, Layers, Pooling


class OrchestratorConfig(PretrainedConfig):  # type: ignore[misc]  # transformers is partly untyped
    """Encoder configuration (as a dict with `model_type`), objectives in order, pooling, layers read, tokens
    read, confidence."""

    model_type = "preforch-orchestrator"

    def __init__(
        self,
        *,
        encoder: dict[str, Any] | None = None,
        objectives: list[str] | None = None,
        pooling: Pooling = "mean",
        layers: Sequence[int] = LAST,
        max_tokens: int = 256,
        confidence: Confidence = "off",
        **kwargs: Any,
    ) -> None:
        self.encoder = encoder or {}
        self.objectives = objectives or []
        self.pooling = pooling
        # A list, as JSON has it: a configuration that was read back equals the one that was written.
        self.layers = list(layers)
        self.max_tokens = max_tokens
        self.confidence = confidence
        super().__init__(**kwargs)


class Familiarity(nn.Module):
    """How like the training prompts a prompt is, by its pooled vector: (B, D) -> (B,) in (0, 1).

    Mahalanobis distance d(u) = |F'(u - mean)|, u = v / |v|, F F' being the precision of the training prompts'
    u (Lee et al. 2018, one class); then 1 / (1 + (d / location)^slope): at even odds, the probability that a
    text at this distance is a prompt of the training kind rather than a foreign text. Fitted by
    `preforch_training.orchestrator.confidence.familiarity`. Unit length matters: that of a pooled vector
    falls with the number of tokens, so that without it short prompts look unfamiliar and everything else
    familiar.
    """

    mean_D: torch.Tensor
    factor_DD: torch.Tensor
    log_location: torch.Tensor
    slope: torch.Tensor
    fallback_K: torch.Tensor

    def __init__(self, width: int, objectives: int) -> None:
        super().__init__()
        self.register_buffer("mean_D", torch.zeros(width))
        self.register_buffer("factor_DD", torch.zeros(width, width))
        self.register_buffer("log_location", torch.zeros(()))
        self.register_buffer("slope", torch.zeros(()))
        self.register_buffer("fallback_K", torch.full((objectives,), 1 / objectives))

    def forward(self, pooled_BD: torch.Tensor) -> torch.Tensor:
        """(B, D) -> (B,)."""
        return torch.sigmoid(self.slope * (self.log_location - self.log_distance(pooled_BD)))

    def log_distance(self, pooled_BD: torch.Tensor) -> torch.Tensor:
        """log d, (B, D) -> (B,)."""
        unit_BD = nn.functional.normalize(pooled_BD, dim=-1)
        distance_B = torch.linalg.vector_norm((unit_BD - self.mean_D) @ self.factor_DD, dim=-1)
        return torch.log(distance_B.clamp(min=1e-6))

    def kept(self, familiarity_B: torch.Tensor) -> torch.Tensor:
        """Share of the weights that shrinkage keeps, g = min(1, 2 familiarity).

        All up to `location`, none far away.
        """
        return (2 * familiarity_B).clamp(max=1)

    def shrink(self, weights_BK: torch.Tensor, familiarity_B: torch.Tensor) -> torch.Tensor:
        """g w + (1 - g) fallback."""
        share_B1 = self.kept(familiarity_B).unsqueeze(-1)
        return share_B1 * weights_BK + (1 - share_B1) * self.fallback_K


class OrchestratorModel(PreTrainedModel):  # type: ignore[misc]  # transformers is partly untyped
    """`forward` gives log f(x), (B, L), (B, L) -> (B, K), which training needs.

    `serve` gives what clients get.
    """

    config_class = OrchestratorConfig
    config: OrchestratorConfig

    def __init__(self, config: OrchestratorConfig) -> None:
        super().__init__(config)
        settings = dict(config.encoder)
        encoder_config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        # Eager attention exports to ONNX exactly.
        self.encoder = AutoModel.from_config(encoder_config, attn_implementation="eager")
        self.layers = check_layers(config.layers, encoder_config.num_hidden_layers)
        width = len(self.layers) * encoder_config.hidden_size
        self.head = nn.Linear(width, len(config.objectives))
        known = config.confidence != "off"
        self.familiarity = Familiarity(width, len(config.objectives)) if known else None
        self.post_init()

    @classmethod
    def from_pretrained(cls, path: str | PathLike[str], **kwargs: Any) -> "OrchestratorModel":
        """A checkpoint, whole: transformers alone would fill in what it lacks. Raises ArtifactError."""
        model, found = super().from_pretrained(path, output_loading_info=True, **kwargs)
        if found["missing_keys"]:
            missing = ", ".join(sorted(found["missing_keys"]))
            raise ArtifactError(
                f"{path}: the orchestrator has no {missing}; another version made it, train it again"
            )
        loaded: OrchestratorModel = model
        return loaded

    def _init_weights(self, module: nn.Module) -> None:
        # A zero head starts at uniform weights.
        if module is self.head:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Log weights before shrinkage, (B, K)."""
        return self.log_weights(self.pooled(input_ids, attention_mask))

    def pooled(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """The vectors that the head reads, (B, D)."""
        return encode(self.encoder, input_ids, attention_mask, self.config.pooling, self.layers)

    def log_weights(self, pooled_BD: torch.Tensor) -> torch.Tensor:
        """Log f(x) of pooled vectors, (B, K)."""
        return torch.log_softmax(self.head(pooled_BD), dim=-1)

    def certainty(self, log_BK: torch.Tensor) -> torch.Tensor:
        """1 - entropy / log K of log weights, (B, K) -> (B,): 0 for equal weights, 1 where one has all."""
        entropy_B = -(log_BK.exp() * log_BK).sum(dim=-1)
        return (1 - entropy_B / math.log(log_BK.shape[-1])).clamp(0, 1)

    def serve(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What clients get: see `serve_pooled`."""
        return self.serve_pooled(self.pooled(input_ids, attention_mask))

    def serve_pooled(self, pooled_BD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights, (B, K), shrunk where the model does that, and confidence, (B,) in 0 to 1.

        confidence = familiarity. Where that is not known, (1 + certainty) / 2, certainty = 1 - entropy of
        f(x) / log K. Not both together: even weights may be right, so that entropy is no doubt about them,
        and where f(x) is near even for every prompt it would halve the confidence of all.
        """
        log_BK = self.log_weights(pooled_BD)
        weights_BK = log_BK.exp()
        if self.familiarity is None:
            return weights_BK, (1 + self.certainty(log_BK)) / 2
        familiarity_B = self.familiarity(pooled_BD)
        if self.config.confidence == "shrink":
            weights_BK = self.familiarity.shrink(weights_BK, familiarity_B)
        return weights_BK, familiarity_B


def new_orchestrator(
    encoder_path: str,
    *,
    objectives: list[str],
    pooling: Pooling,
    max_tokens: int,
    layers: Layers = LAST,
    revision: str = "main",
) -> OrchestratorModel:
    """An orchestrator on a pretrained encoder (folder or hub id), head at zero."""
    encoder = AutoModel.from_pretrained(
        encoder_path, revision=revision, attn_implementation="eager", dtype=torch.float32
    )
    config = OrchestratorConfig(
        encoder=encoder.config.to_diff_dict() | {"model_type": encoder.config.model_type},
        objectives=objectives,
        pooling=pooling,
        layers=layers,
        max_tokens=max_tokens,
    )
    model = OrchestratorModel(config)
    model.encoder.load_state_dict(encoder.state_dict())
    return model
