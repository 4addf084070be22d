"""What a kind of policy is given to build one policy, and the parts that every kind shares."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from preforch_models.conditioning import Conditioning
from transformers import PreTrainedModel

from preforch_training.policy.checkpoint import PolicyInfo, Writer, save_policy
from preforch_training.policy.config import Config, Policy
from preforch_training.policy.fine_tuning import TokenRow, fine_tune, fit_rows
from preforch_training.policy.known_responses import Known, known_responses
from preforch_training.policy.settings.fine_tuning import BASE, FineTuning
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.records import Prompt, by_id
from preforch_training.run import Outcome, Run
from preforch_training.sampling.vllm import Sampler
from preforch_training.scores.table import read_calibration, read_scores
from preforch_training.tuning.device_memory import free_memory


def start_of(run: Run, name: str, policies: Mapping[str, Policy]) -> Path:
    """The policy that a `start` names: the base of all, a finished policy, or one of its rounds."""
    if name == BASE:
        return run.policy_base
    policy, _, number = name.partition("/round-")
    return run.policy_round(policy, int(number) if number else policies[policy].rounds - 1)


@dataclass(frozen=True)
class PolicyTask:
    """One policy to build: its name, and what all policies of the run share."""

    run: Run
    shared: Config
    name: str
    sampler: Sampler
    policies: Mapping[str, Policy] = field(default_factory=dict)
    """All of the run."""

    @property
    def recipe(self) -> dict[str, Any]:
        """What every round depends on besides its own settings and inputs."""
        return {
            "name": self.name,
            "context": self.run.context_format.model_dump(mode="json"),
            "max_model_len": self.shared.max_model_len,
            "seed": self.run.seed,
        }

    def round(self, number: int) -> Path:
        """The folder of a round; before round 0 comes the base."""
        return self.run.policy_round(self.name, number) if number >= 0 else self.run.policy_base

    def start(self, name: str) -> Path:
        """The policy that a `start` names."""
        return start_of(self.run, name, self.policies)

    def seed(self, number: int, purpose: str) -> int:
        """A seed for one purpose of a round."""
        return self.run.seed_for("policy", self.name, number, purpose)

    def prompts(self) -> dict[str, Prompt]:
        """Training prompts by id."""
        return by_id(self.run.prompts("train"))

    def prompts_with_room(self, reader: PolicyTokenizer, *, seed: int) -> list[Prompt]:
        """Training prompts that leave room for a response, in random order. Raises ValueError where none
        does."""
        prompts = list(self.prompts().values())
        tokens = self.shared.max_response_tokens
        order = np.random.default_rng(seed).permutation(len(prompts))
        found = [prompts[i] for i in order if reader.has_room(prompts[i].messages, response_tokens=tokens)]
        if not found:
            raise ValueError(
                f"no training prompt leaves room for {tokens} response tokens; raise max_model_len"
            )
        return found

    def known(self, *, tau: float) -> Known:
        """Scored training responses, with weights softmax(r / tau)."""
        scores, calibration = read_scores(self.run.scores), read_calibration(self.run.scores)
        return known_responses(scores, calibration, self.run.names, tau=tau)

    def train(
        self,
        number: int,
        rows: Sequence[TokenRow],
        settings: FineTuning,
        *,
        kind: str,
        conditioning: Conditioning,
        folder: Path,
        work: Path,
        previous: Path | None = None,
    ) -> Outcome:
        """Fine-tune the round before, or `previous`, on rows and save the result as a policy."""
        previous = previous or self.round(number - 1)
        fitting = fit_rows(rows, max_tokens=self.shared.max_model_len)
        seed = self.seed(number, "sft")
        tracking = self.run.tracking("policy", self.name, f"round-{number}")
        model, found = fine_tune(
            previous, fitting, settings, seed=seed, folder=folder, work=work, tracking=tracking
        )
        self.save(number, model, previous, kind=kind, conditioning=conditioning, folder=folder)
        del model
        free_memory()
        return Outcome(counts={"rows": len(fitting), "too_long": len(rows) - len(fitting)}, metrics=found)

    def save(
        self,
        number: int,
        model: PreTrainedModel | None,
        previous: Path,
        *,
        kind: str,
        conditioning: Conditioning,
        folder: Path,
    ) -> None:
        """Write a round, whose training started from the policy in `previous` and whose tokenizer is that
        one's; None: it has no checkpoint of its own."""
        self.writer(number, previous, kind=kind, conditioning=conditioning)(folder, model)

    def writer(self, number: int, previous: Path, *, kind: str, conditioning: Conditioning) -> Writer:
        """What writes a round into a folder, on any rank."""
        return partial(
            save_policy,
            tokenizer=PolicyTokenizer(previous, conditioning).tokenizer,
            info=PolicyInfo(name=self.name, kind=kind, round=number),
            objectives=self.run.names,
            conditioning=conditioning,
            max_model_len=self.shared.max_model_len,
        )
