"""The one reward function that TRL's trainers call: K calibrated rewards, weighed, combined, less penalties.

In:  responses as token ids, in groups to the same prompt, each with the prompt's id and weights.
Out: one reward a response. Means over the batch are logged: `utility`, which is w.r, `reward.<objective>`,
     `stray_sentences`, `unfinished`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from preforch_training.policy.reinforced.combine import Combiner
from preforch_training.policy.reinforced.repetition import stray_sentences
from preforch_training.policy.settings.rl import RlPolicy
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.records import Prompt


@dataclass(frozen=True)
class GroupReward:
    """`score`: (prompts, responses) -> calibrated rewards (N, K). `usual`: sentences of a usual response.
    `end_ids`: tokens of which one ends a response."""

    config: RlPolicy
    names: Sequence[str]
    prompts: Mapping[str, Prompt]
    score: Callable[[Sequence[Prompt], Sequence[str]], np.ndarray]
    combine: Combiner
    usual: int
    reader: PolicyTokenizer
    end_ids: frozenset[int]

    __name__ = "combined"
    """What TRL logs it as."""

    def __call__(
        self,
        *,
        completion_ids: Sequence[Sequence[int]],
        prompt_id: Sequence[str],
        weights: Sequence[Sequence[float]],
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float]:
        """One reward a response, (N,), N a multiple of the group's size."""
        ended_N = np.array([ids[-1] in self.end_ids for ids in completion_ids])
        texts = [
            self.reader.text(ids[:-1] if ended else ids)
            for ids, ended in zip(completion_ids, ended_N, strict=True)
        ]
        rewards_NK = self.score([self.prompts[i] for i in prompt_id], texts)
        stray_N = np.array([stray_sentences(text, usual=self.usual) for text in texts])
        weights_NK, size = np.array(weights), self.config.samples_per_prompt
        penalty_N = self.config.repetition_penalty * stray_N + self.config.unfinished_penalty * ~ended_N
        found_N = np.empty(len(texts))
        assert len(texts) % size == 0, "groups are whole"
        for start in range(0, len(texts), size):
            group = slice(start, start + size)
            assert len(set(prompt_id[group])) == 1, "a group answers one prompt"
            found_N[group] = self.combine(rewards_NK[group], weights_NK[start]) - penalty_N[group]
        log_metric("utility", float((weights_NK * rewards_NK).sum(axis=1).mean()))
        for name, mean in zip(self.names, rewards_NK.mean(axis=0).tolist(), strict=True):
            log_metric(f"reward.{name}", mean)
        log_metric("stray_sentences", float(stray_N.mean()))
        log_metric("unfinished", float(1 - ended_N.mean()))
        return [float(reward) for reward in found_N]
