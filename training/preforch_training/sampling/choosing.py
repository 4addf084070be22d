"""The sampler that fits a policy: vLLM's, or that of its kind of conditioning.

In:  a policy folder, whose card has a conditioning. Out: what that kind's sampler draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from preforch_models.policy_card import read_policy_card

from preforch_training.sampling.mixture import MixtureSampler
from preforch_training.sampling.settings import Dtype
from preforch_training.sampling.vllm import Generation, Sampler, SampleRequest


@dataclass(frozen=True)
class ChoosingSampler:
    """Draws from every policy; from most of them by `vllm`. `dtype`: of models outside of vLLM."""

    vllm: Sampler
    dtype: Dtype = "auto"

    @property
    def peak_memory_mib(self) -> float:
        """vLLM's: all others draw in this process, whose peak memory every stage measures itself."""
        return self.vllm.peak_memory_mib

    def sample(
        self,
        policy: Path,
        requests: Sequence[SampleRequest],
        *,
        temperature: float,
        top_p: float,
        max_tokens: int,
    ) -> list[list[Generation]]:
        """See `Sampler`."""
        others: dict[str, Sampler] = {"mixture": MixtureSampler(self.dtype)}
        sampler = others.get(read_policy_card(policy).conditioning.kind, self.vllm)
        return sampler.sample(policy, requests, temperature=temperature, top_p=top_p, max_tokens=max_tokens)

    def close(self) -> None:
        """See `Sampler`."""
        self.vllm.close()
