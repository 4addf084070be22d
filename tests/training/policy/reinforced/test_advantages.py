"""What TRL's trainer makes of fixed groups of responses: the advantages of Eq. 9 by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import policy_world
import pytest
import torch
from policy_world import rl
from preforch_models.conditioning.fixed import FixedConditioning
from preforch_training.policy.reinforced import training
from preforch_training.policy.reinforced.combine import combiner
from preforch_training.policy.reinforced.training import Ask, Reference, new_trainer
from preforch_training.policy.settings.rl import Combine, RlPolicy
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.run import Run
from preforch_training.scores.calibration import CalibratedRewards
from small_world import build
from transformers import AutoModelForCausalLM, PreTrainedModel

BETA = 0.3
TEXTS = ("Here is a joke.", "Please be careful and stay safe.", "Thank you for asking.")
UNFINISHED = "Let me think"
KNOWN_NK = np.random.default_rng(0).normal(size=(50, 3))
WEIGHTS = ((0.7, 0.2, 0.1), (0.1, 0.2, 0.7))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a base."""
    config = policy_world.make_config(tmp_path_factory.mktemp("rl") / "run")
    run, _ = policy_world.write_inputs(config.run.folder, config)
    build("policy", run, config.model_copy(update={"policies": {}}))
    return run


class Group:
    """A trainer whose policy has moved from its reference, and which answers every prompt with four texts."""

    def __init__(self, run: Run, work: Path, **settings: Any) -> None:
        training = {"batch_size": 8, "steps": 1}
        self.config = RlPolicy.model_validate(
            rl(samples_per_prompt=4, beta=BETA, training=training, **settings)
        )
        self.reader = PolicyTokenizer(run.policy_base, FixedConditioning())
        self.run, prompts = run, run.prompts("train")[:2]
        self.asks = [
            Ask(prompt, prompt.messages, weights, {})
            for prompt, weights in zip(prompts, WEIGHTS, strict=True)
        ]
        self.trainer = new_trainer(
            run,
            run.policy_base,
            self.asks,
            Reference(KNOWN_NK, 2),
            self.config,
            reader=self.reader,
            max_tokens=8,
            seed=1,
            work=work,
        )
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.trainer.model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        self.responses = [[*self.reader.response_ids(text), self.reader.end_id] for text in TEXTS]
        self.responses.append(self.reader.response_ids(UNFINISHED))
        self.trainer._generate_single_turn = self.generate

    def generate(self, prompts: Sequence[Sequence[int]], *_: Any) -> Any:
        """In the place of TRL's generation: GRPO asks for log-probabilities as well, and takes none."""
        ids = self.responses * (len(prompts) // 4)
        return (ids, None) if self.config.algorithm == "grpo" else ids

    def answer(self) -> dict[str, torch.Tensor]:
        """What the trainer learns from."""
        rows = [row for row in self.trainer.train_dataset.to_list() for _ in range(4)]
        self.trainer.model.train()
        found: dict[str, torch.Tensor] = self.trainer._generate_and_score_completions(rows)
        return found

    def rewards(self) -> np.ndarray:
        """Calibrated, (prompts, responses, K)."""
        score = CalibratedRewards(self.run)
        texts = [*TEXTS, UNFINISHED]
        return np.stack([score([ask.prompt] * 4, texts) for ask in self.asks])

    def log_ratios(self) -> np.ndarray:
        """log pi / pi_start of each response, (prompts, responses)."""
        start = AutoModelForCausalLM.from_pretrained(self.run.policy_base)
        prompts = [self.reader.prompt_ids(ask.prompt.messages, {}) for ask in self.asks]
        both = [
            [[log_probability(model, p, r) for r in self.responses] for p in prompts]
            for model in (self.trainer.model, start)
        ]
        return np.asarray(np.array(both[0]) - np.array(both[1]))


def log_probability(model: PreTrainedModel, prompt: Sequence[int], response: Sequence[int]) -> float:
    with torch.no_grad():
        logs_TV = torch.log_softmax(model(torch.tensor([[*prompt, *response]])).logits[0].double(), dim=-1)
    start = len(prompt) - 1
    return float(sum(logs_TV[start + i, token] for i, token in enumerate(response)))


def leave_one_out(values: np.ndarray) -> np.ndarray:
    """Each less the mean of the other three of its group."""
    return np.array([[v - np.delete(group, i).mean() for i, v in enumerate(group)] for group in values])


def test_rloo_gives_the_advantages_of_equation_9(run: Run, tmp_path: Path) -> None:
    group = Group(run, tmp_path, temperature=1.0)
    found = group.answer()["advantages"].numpy().reshape(2, 4)
    rewards = (group.rewards() * np.array(WEIGHTS)[:, None, :]).sum(axis=-1)
    assert np.abs(group.log_ratios()).max() > 0.1
    np.testing.assert_allclose(found, leave_one_out(rewards - BETA * group.log_ratios()), atol=2e-5)


@pytest.mark.parametrize("combine", ["gdpo", "dvao", "saturation"])
def test_each_group_is_combined_under_its_own_prompt_s_weights(
    run: Run, tmp_path: Path, combine: Combine
) -> None:
    """What K reward functions that are each normalised over prompts would lose."""
    group = Group(run, tmp_path, combine=combine)
    group.trainer.beta = 0.0
    found = group.answer()["advantages"].numpy().reshape(2, 4)
    function = combiner(combine, KNOWN_NK)

    def under(weights: Sequence[Sequence[float]]) -> np.ndarray:
        pairs = zip(group.rewards(), np.array(weights), strict=True)
        return leave_one_out(np.stack([function(rewards_GK, weights_K) for rewards_GK, weights_K in pairs]))

    np.testing.assert_allclose(found, under(WEIGHTS), atol=1e-5)
    # The same weights for both, or each the other's, would be seen.
    for wrong in (WEIGHTS[:1] * 2, WEIGHTS[::-1]):
        assert np.abs(found - under(wrong)).max() > 0.05


def test_penalties_are_taken_from_the_reward(run: Run, tmp_path: Path) -> None:
    plain, strict = (
        Group(run, tmp_path / name, unfinished_penalty=penalty) for name, penalty in (("a", 0.0), ("b", 2.0))
    )
    difference = strict.answer()["advantages"] - plain.answer()["advantages"]
    # The last response alone is unfinished: the mean of the other three loses nothing, theirs a third of it.
    expected = np.tile([2 / 3, 2 / 3, 2 / 3, -2.0], 2)
    np.testing.assert_allclose(difference.numpy(), expected, atol=1e-5)


def test_a_prompt_is_asked_in_the_ids_that_every_other_policy_reads(run: Run, tmp_path: Path) -> None:
    group = Group(run, tmp_path)
    asked = [row["prompt"] for row in group.trainer.train_dataset.to_list()]
    ids, _, _ = group.trainer._tokenize_prompts(asked)
    assert ids == [group.reader.prompt_ids(ask.prompt.messages, {}) for ask in group.asks]


def test_grpo_is_told_of_the_same_rewards(run: Run, tmp_path: Path) -> None:
    group = Group(run, tmp_path, algorithm="grpo")
    found = group.answer()["advantages"].numpy().reshape(2, 4)
    rewards = (group.rewards() * np.array(WEIGHTS)[:, None, :]).sum(axis=-1)
    deviation = rewards.std(axis=1, ddof=1, keepdims=True)
    np.testing.assert_allclose(
        found, (rewards - rewards.mean(axis=1, keepdims=True)) / (deviation + 1e-4), atol=1e-4
    )
    assert group.trainer.beta == BETA


def test_groups_are_whole_on_every_rank(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "check_batch_size", lambda size, name: size // 3)
    with pytest.raises(ValueError, match="this rank has 2: not whole groups of samples_per_prompt = 4"):
        Group(run, tmp_path)
