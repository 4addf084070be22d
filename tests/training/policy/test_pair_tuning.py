"""Losses on pairs: what TRL's trainer computes is what the papers' formulas say of two responses."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from policy_world import make_config, preference, write_inputs
from preforch_training.policy.kinds.difficulty import validation_losses
from preforch_training.policy.log_probabilities import Reader, divergences
from preforch_training.policy.log_probabilities import log_probabilities as of_rows
from preforch_training.policy.pair_tuning import LOSSES, PairRow, labels_asked, new_trainer
from preforch_training.policy.settings.fine_tuning import FineTuning
from preforch_training.policy.settings.preference import PreferenceLoss, PreferencePolicy
from preforch_training.policy.tokenizer import PolicyTokenizer
from small_world import build
from transformers import AutoModelForCausalLM

BETA, GAMMA, SURE = 0.3, 0.7, 0.5
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


def adpo(sides: Sides) -> float:
    """What the policy surely prefers is right; elsewhere the label is."""
    plus, minus = (side[:, 0].sum() - side[:, 2].sum() for side in sides)
    margin = BETA * (plus - minus)
    return -log_sigmoid(abs(margin) if abs(margin) > SURE else margin)


FORMULAS: dict[PreferenceLoss, Callable[[Sides], float]] = {
    "dpo": dpo,
    "ipo": ipo,
    "wpo": wpo,
    "simpo": simpo,
    # With all weight on its own objective.
    "modpo": dpo,
    "adpo": adpo,
    "selective_dpo": dpo,
}
OWN: dict[PreferenceLoss, dict[str, Any]] = {
    "simpo": {"gamma": GAMMA},
    "modpo": {"objective": "humor", "weights": {"humor": 1.0}},
    "adpo": {"query_margin": SURE},
}


def trainer_of(
    policy: Path, loss: PreferenceLoss, work: Path, *, rows: list[PairRow] | None = None, **own: Any
) -> Any:
    table = preference(loss=loss, beta=BETA, training={"batch_size": 2}, **OWN.get(loss, {}) | own)
    rows = with_reference(policy, rows or ROWS) if loss == "adpo" else rows or ROWS
    return new_trainer(policy, rows, PreferencePolicy.model_validate(table), seed=0, work=work)


def with_reference(policy: Path, rows: list[PairRow]) -> list[PairRow]:
    end, found = PolicyTokenizer(policy).end_id, []
    for row in rows:
        texts = [(row.prompt, (*side, end)) for side in (row.chosen, row.rejected)]
        plus, minus = (float(logs[:, 0].sum()) for logs in log_probabilities(policy, texts))
        found.append(replace(row, reference=(plus, minus)))
    return found


def sides_of(row: PairRow, base: Path, moved: Path) -> Sides:
    end = PolicyTokenizer(base).end_id
    texts = [(row.prompt, (*side, end)) for side in (row.chosen, row.rejected)]
    own, reference = log_probabilities(moved, texts), log_probabilities(base, texts)
    plus, minus = (np.column_stack([mine, theirs[:, 0]]) for mine, theirs in zip(own, reference, strict=True))
    return plus, minus


def test_every_loss_has_a_formula_here() -> None:
    assert {*FORMULAS, "kto"} == LOSSES.keys()


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

    expected = [FORMULAS[loss](sides_of(row, base, moved)) for row in ROWS]
    assert found == pytest.approx(np.mean(expected), abs=1e-5)
    assert abs(expected[0] - expected[1]) > 1e-3


def test_the_losses_differ(policies: tuple[Path, Path], tmp_path: Path) -> None:
    """On the policy that is its own reference: log 2, (1 / 2 beta)^2, less than log 2, and what only SimPO
    sees."""
    found = {}
    for loss in FORMULAS:
        own: dict[str, Any] = {"gamma": 0.0} if loss == "simpo" else {}
        trainer = trainer_of(policies[0], loss, tmp_path / loss, **own)
        batch = trainer.data_collator([trainer.train_dataset[i] for i in range(2)])
        trainer.model.eval()
        found[loss] = trainer.compute_loss(trainer.model, batch).item()
    assert found["dpo"] == pytest.approx(math.log(2), abs=1e-6)
    assert found["ipo"] == pytest.approx((1 / (2 * BETA)) ** 2, abs=1e-4)
    assert 0 < found["wpo"] < 0.9 * found["dpo"]
    assert abs(found["simpo"] - found["dpo"]) > 1e-4


def moved_loss(trainer: Any, moved: Path) -> tuple[float, float]:
    """The loss of both rows under the policy that moved, and a number of its gradient."""
    trainer.model.load_state_dict(AutoModelForCausalLM.from_pretrained(moved).state_dict())
    trainer.model.eval()
    loss = trainer.compute_loss(
        trainer.model, trainer.data_collator([trainer.train_dataset[i] for i in range(2)])
    )
    loss.backward()
    return loss.item(), float(sum(p.grad.abs().sum() for p in trainer.model.parameters()))


def test_adpo_reads_labels_where_it_is_unsure_and_nowhere_else(
    policies: tuple[Path, Path], tmp_path: Path
) -> None:
    """Of one pair with a small and one with a large margin, the label of the small one alone makes a
    difference; the large one is learned in the policy's own order."""
    base, moved = policies
    margins = []
    for row in ROWS:
        plus, minus = (side[:, 0].sum() - side[:, 2].sum() for side in sides_of(row, base, moved))
        margins.append(BETA * (plus - minus))
    unsure, sure = sorted(range(2), key=lambda i: abs(margins[i]))
    between = (abs(margins[unsure]) + abs(margins[sure])) / 2
    found = {}
    for flipped in (None, unsure, sure):
        rows = [
            replace(row, chosen=row.rejected, rejected=row.chosen) if i == flipped else row
            for i, row in enumerate(ROWS)
        ]
        work = tmp_path / str(flipped)
        trainer = trainer_of(base, "adpo", work, rows=rows, query_margin=between)
        found[flipped] = moved_loss(trainer, moved)
        assert trainer._metrics["eval"]["labels/asked"] == [0.5]
    assert found[sure] == pytest.approx(found[None], abs=1e-6)
    expected = [-log_sigmoid(margins[unsure]), -log_sigmoid(abs(margins[sure]))]
    assert found[None][0] == pytest.approx(np.mean(expected), abs=1e-5)
    expected[0] = -log_sigmoid(-margins[unsure])
    assert found[unsure][0] == pytest.approx(np.mean(expected), abs=1e-5)
    assert abs(found[unsure][0] - found[None][0]) > 1e-3


def test_labels_that_were_asked_are_counted_once_a_meeting() -> None:
    history = [
        {"step": 2, "labels/asked": 1.0},
        {"step": 4, "labels/asked": 0.25},
        {"step": 4, "train_loss": 0.5},
    ]
    training = FineTuning(steps=4, learning_rate=1.0, batch_size=8, accumulation=2)
    assert labels_asked(history, training) == {"labels_asked": 2 * 16 + 2 * 4}
    assert labels_asked([{"step": 2, "loss": 0.5}], training) == {}


def test_what_a_pair_is_judged_by_is_the_loss_of_dpo(policies: tuple[Path, Path]) -> None:
    base, moved = policies
    expected = [dpo(sides_of(row, base, moved)) for row in ROWS]
    found_N = validation_losses(base, moved, ROWS, beta=BETA)
    np.testing.assert_allclose(found_N, expected, atol=1e-5)


@pytest.mark.parametrize(("loss", "in_order"), [("selective_dpo", True), ("dpo", False)])
def test_the_rows_of_selective_dpo_are_read_in_their_order(
    loss: PreferenceLoss, in_order: bool, policies: tuple[Path, Path], tmp_path: Path
) -> None:
    rows = [PairRow(prompt=(20 + i,), chosen=(30, 31), rejected=(40,)) for i in range(12)]
    trainer = trainer_of(policies[0], loss, tmp_path, rows=rows)
    read = [int(ids[0]) - 20 for batch in trainer.get_train_dataloader() for ids in batch["input_ids"][:2]]
    assert sorted(read) == list(range(12))
    assert (read == list(range(12))) == in_order


def test_modpo_takes_what_the_other_objectives_want_off_the_margin(
    policies: tuple[Path, Path], tmp_path: Path
) -> None:
    """-log sigma((beta (h+ - h-) - sum over j != k of w_j (r_j(y+) - r_j(y-))) / w_k): 2310.03708, Eq. 9."""
    base, moved = policies
    weight, wanted = 0.25, ((0.4, -0.3), (1.2, 0.1))
    end = PolicyTokenizer(base).end_id
    rows, expected = [], []
    for row, (plus, minus) in zip(ROWS, wanted, strict=True):
        texts = [(row.prompt, (*side, end)) for side in (row.chosen, row.rejected)]
        own, reference = (
            [float(logs[:, 0].sum()) for logs in log_probabilities(policy, texts)] for policy in (moved, base)
        )
        rows.append(replace(row, reference=(reference[0] + plus / BETA, reference[1] + minus / BETA)))
        ratios = (own[0] - reference[0]) - (own[1] - reference[1])
        expected.append(-log_sigmoid((BETA * ratios - (plus - minus)) / weight))
    settings = {"objective": "humor", "weights": {"humor": weight, "helpful": 1 - weight}}
    table = preference(loss="modpo", beta=BETA, training={"batch_size": 2}, **settings)
    trainer = new_trainer(base, rows, PreferencePolicy.model_validate(table), seed=0, work=tmp_path)
    trainer.model.load_state_dict(AutoModelForCausalLM.from_pretrained(moved).state_dict())
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(2)])
    trainer.model.eval()
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(np.mean(expected), abs=1e-5)


def test_kto_is_what_its_formula_says(policies: tuple[Path, Path], tmp_path: Path) -> None:
    """1 - sigma(+-beta (h - z)), z the mean h of responses to other prompts or 0: 2402.01306, Eq. 7."""
    base, moved = policies
    trainer = trainer_of(base, "kto", tmp_path)
    trainer.model.load_state_dict(AutoModelForCausalLM.from_pretrained(moved).state_dict())
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    trainer.model.eval()
    found = trainer.compute_loss(trainer.model, batch).item()

    end = PolicyTokenizer(base).end_id
    first, second = ROWS
    texts = [(row.prompt, (*side, end)) for row in ROWS for side in (row.chosen, row.rejected)]
    others = [(first.prompt, texts[2][1]), (first.prompt, texts[3][1])]
    others += [(second.prompt, texts[0][1]), (second.prompt, texts[1][1])]
    ratios, baseline = (
        [
            float(own[:, 0].sum() - reference[:, 0].sum())
            for own, reference in zip(
                log_probabilities(moved, rows), log_probabilities(base, rows), strict=True
            )
        ]
        for rows in (texts, others)
    )
    z = max(0.0, float(np.mean(baseline)))
    signs = [1, -1, 1, -1]
    expected = [1 - math.exp(log_sigmoid(s * BETA * (h - z))) for s, h in zip(signs, ratios, strict=True)]
    assert found == pytest.approx(np.mean(expected), abs=1e-5)
    assert np.ptp(expected) > 0.01


def test_log_probabilities_of_many_rows_are_those_of_each_alone(policies: tuple[Path, Path]) -> None:
    texts = [(row.prompt, side) for row in ROWS for side in (row.chosen, row.rejected)]
    found = of_rows(policies[1], [prompt for prompt, _ in texts], [response for _, response in texts])
    expected = [logs[:, 0].sum() for logs in log_probabilities(policies[1], texts)]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_divergences_are_those_of_all_next_tokens_along_each_response(policies: tuple[Path, Path]) -> None:
    """The prompt of the reference may be another one: it is written as each policy reads it."""
    base, moved = (
        AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float64).eval() for policy in policies
    )
    prompts, responses = [row.prompt for row in ROWS], [row.rejected for row in ROWS]
    theirs = [(9, *prompt) for prompt in prompts]
    expected = []
    for prompt, other, response in zip(prompts, theirs, responses, strict=True):
        total = 0.0
        for count in range(len(response)):
            said = response[:count]
            p, q = (
                torch.log_softmax(model(torch.tensor([[*ids, *said]])).logits[0, -1], dim=-1)
                for model, ids in ((moved, prompt), (base, other))
            )
            total += (p.exp() * (p - q)).sum().item()
        expected.append(total)
    found = divergences(Reader(policies[1]), Reader(policies[0]), prompts, theirs, responses)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert min(expected) > 0.01
    own = divergences(Reader(policies[1]), Reader(policies[1]), prompts, prompts, responses)
    np.testing.assert_allclose(own, 0, atol=1e-6)


def test_tokens_that_one_policy_alone_knows_are_no_difference(
    policies: tuple[Path, Path], tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(policies[1])
    model.resize_token_embeddings(model.config.vocab_size + 3)
    model.save_pretrained(tmp_path)
    prompts, responses = [row.prompt for row in ROWS], [row.chosen for row in ROWS]
    whole, more = (
        divergences(Reader(policy), Reader(policies[0]), prompts, prompts, responses)
        for policy in (policies[1], tmp_path)
    )
    np.testing.assert_allclose(more, whole, atol=1e-4)
    # One that it says itself is not read by the other one: a response counts up to there.
    own = [(*response, model.config.vocab_size - 1, 30) for response in responses]
    np.testing.assert_allclose(
        divergences(Reader(tmp_path), Reader(policies[0]), prompts, prompts, own), whole, atol=1e-4
    )
