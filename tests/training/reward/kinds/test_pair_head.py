"""Reward kind `pair_head`: it learns, and its rewards do not depend on what is scored beside."""

from pathlib import Path

import numpy as np
import pytest
import small_world
import torch
from preforch_models.manifest import read_manifest, verify
from preforch_models.reward_model import PairHead
from preforch_training.config import RunConfig
from preforch_training.reward.config import PairHeadReward
from preforch_training.reward.kinds import pair_head
from preforch_training.reward.kinds.pair_head import cross_fit, fit_pair_head
from preforch_training.reward.scoring import score
from preforch_training.run import Run
from reward_world import pair_heads
from small_world import FUNNY, NAMES, SAFE, build, make_prompt, make_run, questions

LINEAR = PairHeadReward(encoder="none", hidden=0, penalties=(1.0, 0.1, 0.01))


@pytest.fixture(scope="module")
def heads(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, RunConfig]:
    """A run with trained pair heads."""
    run, config = make_run(tmp_path_factory.mktemp("heads"), reward=pair_heads(encoder))
    build("data", run, config)
    build("reward", run, config)
    return run, config


def test_a_pair_head_learns_a_separable_problem(heads: tuple[Run, RunConfig]) -> None:
    run, config = heads
    for name, (better, worse) in {"funny": (FUNNY, SAFE), "safe": (SAFE, FUNNY)}.items():
        accuracies = verify(run.reward(name), kind="reward").metrics["validation_pair_accuracy"]
        assert accuracies == {"fold 0": 1.0, "fold 1": 1.0, "full": 1.0}
        prompts = [make_prompt("joke about hotel"), make_prompt("danger near island")]
        high, low = (
            score(config.reward.objectives[name], run.reward(name), run.encoder_cache, prompts, [text] * 2)
            for text in (better, worse)
        )
        assert high.min() > low.max() + 0.2


def test_an_untrained_pair_head_does_not_solve_it(encoder: Path, tmp_path: Path) -> None:
    run, config = make_run(tmp_path, reward=pair_heads(encoder, epochs=1, learning_rate=0.0))
    build("data", run, config)
    build("reward", run, config)
    metrics = [read_manifest(run.reward(name)).metrics["validation_pair_accuracy"].values() for name in NAMES]
    assert any(value < 1 for values in metrics for value in values)


def test_rewards_of_a_pair_head_do_not_depend_on_order_or_company(
    heads: tuple[Run, RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, config = heads
    prompts = [make_prompt(question) for question in small_world.questions()[:9]]
    responses = [FUNNY, SAFE, "haha"] * 3

    def rewards(rows: list[int]) -> np.ndarray:
        asked, answers = [prompts[i] for i in rows], [responses[i] for i in rows]
        return score(
            config.reward.objectives["funny"], run.reward("funny"), run.encoder_cache, asked, answers, fold=0
        )

    together = rewards(list(range(9)))
    np.testing.assert_allclose(rewards(list(range(9))[::-1])[::-1], together, atol=1e-4)
    np.testing.assert_allclose([rewards([i])[0] for i in range(9)], together, atol=1e-4)
    monkeypatch.setattr(pair_head, "SCORED_AT_ONCE", 2)
    np.testing.assert_allclose(rewards(list(range(9))), together, atol=1e-4)


def test_the_offset_that_the_loss_leaves_free_is_pinned_near_zero(heads: tuple[Run, RunConfig]) -> None:
    run, config = heads
    prompts = [make_prompt(question) for question in small_world.questions()]
    both = [
        score(
            config.reward.objectives["funny"],
            run.reward("funny"),
            run.encoder_cache,
            prompts,
            [text] * len(prompts),
        )
        for text in (FUNNY, SAFE)
    ]
    assert abs(np.mean(both)) < 0.25 * np.ptp(both)


# Linear heads.


def head_data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, np.ndarray]:
    """Vectors under which what is good depends on the prompt."""
    generator = torch.Generator().manual_seed(0)
    x_ND, left_ND, right_ND = (torch.randn(400, 3, generator=generator) for _ in range(3))
    wins_N1 = (x_ND[:, :1] * (left_ND - right_ND)[:, :1]) > 0
    group_N = np.arange(400)
    return x_ND, torch.where(wins_N1, left_ND, right_ND), torch.where(wins_N1, right_ND, left_ND), group_N


def test_a_linear_head_learns_what_depends_on_the_prompt_and_needs_no_seed() -> None:
    x_ND, chosen_ND, rejected_ND, group_N = head_data()
    heads = [
        fit_pair_head(LINEAR, x_ND, chosen_ND, rejected_ND, group_N, seed=seed, label="test")[0]
        for seed in (1, 2)
    ]
    with torch.inference_mode():
        first_N, second_N = (head(x_ND, chosen_ND) - head(x_ND, rejected_ND) for head in heads)
    torch.testing.assert_close(first_N, second_N, atol=0, rtol=0)
    assert (first_N > 0).float().mean() > 0.9


def test_a_saved_linear_head_gives_the_same_rewards_whatever_is_scored_beside(tmp_path: Path) -> None:
    x_ND, chosen_ND, rejected_ND, group_N = head_data()
    head, curve = fit_pair_head(LINEAR, x_ND, chosen_ND, rejected_ND, group_N, seed=0, label="test")
    assert len(curve) == 1
    assert 0 < curve[0]["loss"] < np.log(2)
    head.save_pretrained(tmp_path)
    loaded = PairHead.from_pretrained(tmp_path).eval()
    with torch.inference_mode():
        rewards_N = loaded(x_ND, chosen_ND)
        torch.testing.assert_close(rewards_N, head(x_ND, chosen_ND), atol=0, rtol=0)
        batches = zip(torch.split(x_ND.flip(0), 7), torch.split(chosen_ND.flip(0), 7), strict=True)
        backwards_N = torch.cat([loaded(x_BD, y_BD) for x_BD, y_BD in batches])
    torch.testing.assert_close(backwards_N.flip(0), rewards_N, atol=1e-4, rtol=0)


# Heads for the study.


@pytest.mark.parametrize("hidden", [0, 8])
def test_heads_fitted_in_memory_score_rows_in_any_order(encoder: Path, tmp_path: Path, hidden: int) -> None:
    settings = PairHeadReward(encoder=str(encoder), hidden=hidden, max_tokens=24, penalties=(0.1, 0.01))
    asked = questions()[:20]
    fit = cross_fit(settings, tmp_path, [*asked, *asked], [FUNNY] * 20 + [SAFE] * 20)
    scorer = fit(np.column_stack([np.arange(15), 20 + np.arange(15)]), 3)
    rows_R = np.arange(40)
    rewards_R = scorer(rows_R)
    assert (rewards_R[15:20] > rewards_R[35:]).all()
    np.testing.assert_allclose(scorer(np.flip(rows_R).copy())[::-1], rewards_R, atol=1e-4)
    np.testing.assert_allclose([scorer(rows_R[[row]])[0] for row in (0, 21)], rewards_R[[0, 21]], atol=1e-4)
    assert scorer(rows_R[:0]).shape == (0,)
