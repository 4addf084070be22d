"""Losses on pairs: what TRL's trainer computes is what the papers' formulas say of two responses."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from policy_world import make_config, preference, write_inputs
from preforch_training.policy.pair_tuning import LOSSES, PairRow, PairTrainer, new_trainer
from preforch_training.policy.settings.preference import PreferenceLoss, PreferencePolicy
from preforch_training.policy.tokenizer import PolicyTokenizer
from small_world import build
from transformers import AutoModelForCausalLM

BETA, GAMMA = 0.3, 0.7
ROWS = [
    PairRow(prompt=(20, 21, 22), chosen=(30, 31), rejected=(40,)),
    PairRow(prompt=(23,), chosen=(50,), rejected=(60, 61, 62)),
]


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base, and the same with other numbers: what a training may have made of it."""
    config = make_config(tmp_path_factory.mktemp("pairs") / "run")
    run, _ = write_inputs(config.run.folder, config)
    build("policy", run, config.model_copy(update={"policies": {}}))
    moved = tmp_path_factory.mktemp("moved")
    model = AutoModelForCausalLM.from_pretrained(run.policy_base)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(moved)
    return run.policy_base, moved


def log_probabilities(policy: Path, rows: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[np.ndarray]:
    """log p of each token of the responses, and log sum p^2 at its place, (tokens, 2), one row at a time."""
    model, found = AutoModelForCausalLM.from_pretrained(policy).double(), []
    for prompt, response in rows:
        with torch.no_grad():
            logs_TV = torch.log_softmax(model(torch.tensor([[*prompt, *response]])).logits[0], dim=-1)
        places = range(len(prompt) - 1, len(prompt) + len(response) - 1)
        squares = [float(torch.logsumexp(2 * logs_TV[place], dim=-1)) for place in places]
        own = [float(logs_TV[place, token]) for place, token in zip(places, response, strict=True)]
        found.append(np.array([own, squares]).T)
    return found


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


Sides = tuple[np.ndarray, np.ndarray]
"""Of y+ and y-: per token log p of the policy, log sum p^2 of the policy, log p of the reference."""


def dpo(sides: Sides) -> float:
    plus, minus = (side[:, 0].sum() - side[:, 2].sum() for side in sides)
    return -log_sigmoid(BETA * (plus - minus))


def ipo(sides: Sides) -> float:
    plus, minus = ((side[:, 0] - side[:, 2]).mean() for side in sides)
    return float((plus - minus - 1 / (2 * BETA)) ** 2)


def wpo(sides: Sides) -> float:
    weights = [math.exp((side[:, 0] - side[:, 1]).mean()) for side in sides]
    return dpo(sides) * math.prod(weights)


def simpo(sides: Sides) -> float:
    plus, minus = (side[:, 0].mean() for side in sides)
    return -log_sigmoid(BETA * (plus - minus) - GAMMA)


FORMULAS: dict[PreferenceLoss, Callable[[Sides], float]] = {
    "dpo": dpo,
    "ipo": ipo,
    "wpo": wpo,
    "simpo": simpo,
}


def trainer_of(policy: Path, loss: PreferenceLoss, work: Path, *, gamma: float = GAMMA) -> PairTrainer:
    margin = {"gamma": gamma} if loss == "simpo" else {}
    table = preference(loss=loss, beta=BETA, training={"batch_size": 2}, **margin)
    return new_trainer(policy, ROWS, PreferencePolicy.model_validate(table), seed=0, work=work)


def test_every_loss_has_a_formula_here() -> None:
    assert FORMULAS.keys() == LOSSES.keys()


@pytest.mark.parametrize("loss", FORMULAS)
def test_a_loss_is_what_its_formula_says(
    loss: PreferenceLoss, policies: tuple[Path, Path], tmp_path: Path
) -> None:
    base, moved = policies
    trainer = trainer_of(base, loss, tmp_path)
    trainer.model.load_state_dict(AutoModelForCausalLM.from_pretrained(moved).state_dict())
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(2)])
    trainer.model.eval()
    found = trainer.compute_loss(trainer.model, batch).item()

    end = PolicyTokenizer(base).end_id
    expected = []
    for row in ROWS:
        texts = [(row.prompt, (*side, end)) for side in (row.chosen, row.rejected)]
        own, reference = log_probabilities(moved, texts), log_probabilities(base, texts)
        plus, minus = (
            np.column_stack([mine, theirs[:, 0]]) for mine, theirs in zip(own, reference, strict=True)
        )
        expected.append(FORMULAS[loss]((plus, minus)))
    assert found == pytest.approx(np.mean(expected), abs=1e-5)
    assert abs(expected[0] - expected[1]) > 1e-3


def test_the_losses_differ(policies: tuple[Path, Path], tmp_path: Path) -> None:
    """On the policy that is its own reference: log 2, (1 / 2 beta)^2, less than log 2, and what only SimPO
    sees."""
    found = {}
    for loss in FORMULAS:
        trainer = trainer_of(policies[0], loss, tmp_path / loss, gamma=0.0)
        batch = trainer.data_collator([trainer.train_dataset[i] for i in range(2)])
        trainer.model.eval()
        found[loss] = trainer.compute_loss(trainer.model, batch).item()
    assert found["dpo"] == pytest.approx(math.log(2), abs=1e-6)
    assert found["ipo"] == pytest.approx((1 / (2 * BETA)) ** 2, abs=1e-4)
    assert 0 < found["wpo"] < 0.9 * found["dpo"]
    assert abs(found["simpo"] - found["dpo"]) > 1e-4
