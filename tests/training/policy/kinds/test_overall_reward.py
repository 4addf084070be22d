"""The one overall reward: trained on the overall pairs, calibrated as all are, read by `rl` alone; no
objective."""

from pathlib import Path
from typing import Any

import numpy as np
import policy_world
import pytest
from policy_world import NAMES, rl, sft
from preforch_models.manifest import digest, read_manifest, verify
from preforch_models.policy_card import read_policy_card
from preforch_training.config import RunConfig
from preforch_training.policy.kinds.rl import draw_asks
from preforch_training.policy.settings.rl import RlPolicy
from preforch_training.policy.task import PolicyTask
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.reward.scoring import read_reward, score
from preforch_training.run import Run
from preforch_training.scores.calibration import CalibratedRewards
from preforch_training.scores.table import read_calibration, read_scores
from pydantic import ValidationError
from small_world import NoSampler, build

GIVEN = {name: {"kind": "function", "function": f"policy_world:{name}"} for name in NAMES}
OVERALL = {"kind": "function", "function": "policy_world:helpful"}


@pytest.fixture(scope="module")
def built(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, RunConfig]:
    """A run with a policy by the overall reward, which is a head that was trained."""
    folder = tmp_path_factory.mktemp("overall") / "run"
    head = {"kind": "pair_head", "encoder": str(encoder), "hidden": 8, "epochs": 3, "batch_size": 8}
    config = policy_world.make_config(
        folder,
        policies={"plain": sft(), "ppo": rl(start="plain", weights="overall")},
        reward={"folds": 2, **GIVEN, "overall": head},
    )
    run, _ = policy_world.write_inputs(folder, config)
    build("policy", run, config)
    return run, config


def test_it_is_trained_on_the_overall_pairs(built: tuple[Run, RunConfig]) -> None:
    run, _ = built
    counts = verify(run.reward("overall"), kind="reward").counts
    splits = ("train", "validation")
    assert counts == {f"{split}_pairs": len(run.pairs("overall", split)) for split in splits}
    assert read_reward(run.reward("overall")).folds == 2


def test_it_is_no_objective(built: tuple[Run, RunConfig]) -> None:
    run, config = built
    assert run.names == config.names == NAMES
    assert set(read_calibration(run.scores).constants) == set(NAMES)
    assert all(set(found.rewards) == set(NAMES) for found in read_scores(run.scores))
    card = read_policy_card(run.policy_round("ppo", 0))
    assert card.objectives == NAMES
    assert not card.conditioning.reads_weights


def test_it_is_calibrated_as_the_others_are_by_models_that_did_not_see_the_prompt(
    built: tuple[Run, RunConfig],
) -> None:
    run, _ = built
    table = [found for found in read_scores(run.overall.scores) if found.split == "train"]
    prompts = {prompt.id: prompt for prompt in run.prompts("train")}
    distinct = {(found.prompt_id, found.response): found for found in table}
    raw_N = np.array([found.rewards["overall"] for found in distinct.values()])
    (constants,) = read_calibration(run.overall.scores).constants.values()
    assert (constants.offset, 1 / constants.scale) == pytest.approx((raw_N.mean(), raw_N.std()))
    found = table[5]
    prompt = prompts[found.prompt_id]
    own = score(
        read_reward(run.reward("overall")).reward,
        run.reward("overall"),
        run.encoder_cache,
        [prompt],
        [found.response],
        fold=found.fold,
    )
    rewards_NK = CalibratedRewards(run.overall)([prompt], [found.response])
    np.testing.assert_allclose(rewards_NK, (own[:, None] - raw_N.mean()) / raw_N.std(), atol=1e-6)


def test_a_policy_is_rewarded_by_it_alone(built: tuple[Run, RunConfig]) -> None:
    run, config = built
    manifest = verify(run.policy_round("ppo", 0), kind="policy")
    rewards = {name for name in manifest.metrics if name.startswith("reward.")}
    assert rewards == {"reward.overall"}
    assert manifest.metrics["utility"] == pytest.approx(manifest.metrics["reward.overall"])
    assert {name for name in manifest.inputs if name.startswith("reward/")} == {"reward/overall"}
    assert manifest.inputs["scores"] == digest(read_manifest(run.overall.scores).files)
    policy = config.policies["ppo"]
    assert isinstance(policy, RlPolicy)
    assert config.policy is not None
    task = PolicyTask(run, config.policy, "ppo", NoSampler(), config.policies)
    asks = draw_asks(task, policy, 0, PolicyTokenizer(task.start("plain")))
    assert {ask.weights for ask in asks} == {(1.0,)}
    assert all(ask.context == {} for ask in asks)


@pytest.mark.parametrize(
    ("reward", "policies", "message"),
    [
        (
            GIVEN,
            {"ppo": rl(weights="overall")},
            r'policies\.ppo\.weights is "overall".* no \[reward\.overall\]',
        ),
        ({**GIVEN, "overall": OVERALL}, {"mo": rl()}, r"\[reward\.overall\] has no use"),
        ({**GIVEN, "overall": {"kind": "oracle"}}, {"mo": rl()}, "oracle"),
    ],
)
def test_one_without_the_other_is_refused(
    reward: dict[str, Any], policies: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValidationError, match=message):
        policy_world.make_config(tmp_path, policies=policies, reward=reward)
