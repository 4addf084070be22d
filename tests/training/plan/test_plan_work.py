"""Memory and work by formula, against numbers made by hand."""

from pathlib import Path
from typing import Any

import plan_world
import pytest
import small_world
from plan_world import write_config
from preforch_training.config import RunConfig
from preforch_training.plan.counts import assumed_pairs, count_pairs, written_bytes
from preforch_training.plan.sizes import ModelSize, measure
from preforch_training.plan.work import Load, Scale, loads, training_memory
from preforch_training.tuning.options import Tuning
from small_world import build, make_run

WIC = {
    "kind": "wic",
    "tau": 0.1,
    "offline": {
        "responses": "all",
        "steps": 100,
        "learning_rate": 1e-4,
        "batch_size": 4,
        "accumulation": 2,
        "lora_rank": 4,
        "gradient_checkpointing": True,
    },
    "online_rounds": 2,
    "online": {
        "steps": 10,
        "learning_rate": 1e-5,
        "batch_size": 4,
        "prompts": 50,
        "samples_per_prompt": 3,
        "keep": "any_above_quantile",
        "random_weight_share": 0,
    },
}
SFT = {"steps": 10, "learning_rate": 1e-5, "batch_size": 4}
POLICY = {"base": "policy", "max_model_len": 64, "max_response_tokens": 16}


@pytest.fixture
def size(tmp_path: Path) -> ModelSize:
    """2,792 parameters, 1,992 of them multiplied with, 256 a rank of LoRA."""
    return measure(write_config(tmp_path / "model", plan_world.COUNTABLE), "policy")


def config_of(folder: Path, **reward: Any) -> RunConfig:
    """Bradley-Terry for "funny", a classifier for "safe", and a policy."""
    rewards = {
        "funny": {"kind": "bradley_terry", "base": "reward", "max_tokens": 32, "batch_size": 8, "epochs": 2},
        "safe": {"kind": "classifier", "model": "classifier", "max_tokens": 32},
    }
    return small_world.make_config(
        folder,
        reward={**rewards, **reward},
        orchestrator={"encoder": "encoder", "max_tokens": 16, "epochs": 3},
        policy=POLICY,
        policies={
            "wic": WIC,
            "plain": {"kind": "sft", "training": SFT},
            "dpo": {"kind": "preference", "loss": "dpo", "training": SFT},
            "lora": {"kind": "preference", "loss": "ipo", "training": {**SFT, "lora_rank": 4}},
            "simpo": {"kind": "preference", "loss": "simpo", "gamma": 1.0, "training": SFT},
            "rl": {"kind": "rl", "weights": "uniform", "samples_per_prompt": 2, "runs": 3, "training": SFT},
            "mod": {"kind": "mod", "members": {"funny": "plain", "safe": "dpo"}},
        },
        serve="wic",
    )


def work_of(config: RunConfig, size: ModelSize, **scale: Any) -> dict[str, Load]:
    sizes = dict.fromkeys(("reward", "classifier", "encoder", "policy"), size)
    found = list(loads(config, Scale(pairs=assumed_pairs(config, 1000), sizes=sizes, **scale)))
    assert len({load.stage for load in found}) == len(found)
    return {load.stage: load for load in found}


def test_tokens_of_every_stage_are_those_of_its_rows(tmp_path: Path, size: ModelSize) -> None:
    work = work_of(config_of(tmp_path, folds=5), size)
    # 600 of 1,000 pairs train; both sides; 2 epochs; the full model and 5 on four fifths each.
    assert work["reward/funny"].tokens == 600 * 2 * 32 * 2 * (1 + 4)
    assert work["scores, funny"].tokens == work["scores, safe"].tokens == 1000 * 2 * 32
    assert work["orchestrator"].tokens == 600 * 16 * 3
    assert work["policy/wic, offline"].tokens == 100 * 4 * 2 * 64
    # Two rounds.
    assert work["policy/wic, online, sampling"].tokens == 2 * 50 * 3 * 64
    assert work["policy/wic, online, scoring, safe"].tokens == 2 * 50 * 3 * 32
    assert work["policy/wic, online"].tokens == 2 * 10 * 4 * 64
    assert set(work) == {
        "reward/funny",
        "scores, funny",
        "scores, safe",
        "orchestrator",
        "policy/wic, offline",
        "policy/wic, online, sampling",
        "policy/wic, online, scoring, funny",
        "policy/wic, online, scoring, safe",
        "policy/wic, online",
        "policy/plain, training",
        "policy/dpo, training, reference",
        "policy/dpo, training",
        "policy/lora, training, reference",
        "policy/lora, training",
        "policy/simpo, training",
        "policy/rl, training, sampling",
        "policy/rl, training, scoring, funny",
        "policy/rl, training, scoring, safe",
        "policy/rl, training, reference",
        "policy/rl, training",
    }


def test_pairs_are_two_texts_and_a_reference_reads_them_and_takes_memory_unless_lora_hides_in_it(
    tmp_path: Path, size: ModelSize
) -> None:
    work = work_of(config_of(tmp_path), size)
    plain, dpo, simpo, lora = (work[f"policy/{name}, training"] for name in ("plain", "dpo", "simpo", "lora"))
    assert dpo.tokens == simpo.tokens == work["policy/dpo, training, reference"].tokens == 2 * plain.tokens
    assert work["policy/dpo, training, reference"].per_parameter == 2
    memories = [load.memory for load in (plain, dpo, simpo, lora)]
    assert None not in memories
    first, second, third, fourth = (memory for memory in memories if memory is not None)
    assert second.activations == third.activations == 2 * first.activations
    assert second.weights == first.weights + 4 * size.parameters
    assert third.weights == first.weights
    assert fourth.weights < second.weights


def test_reinforcement_samples_what_it_trains_on_and_keeps_its_rewards(
    tmp_path: Path, size: ModelSize
) -> None:
    work = work_of(config_of(tmp_path, folds=5), size)
    # Three runs of ten steps of four responses.
    assert work["policy/rl, training, sampling"].tokens == work["policy/rl, training"].tokens == 3 * 40 * 64
    assert work["policy/rl, training, scoring, safe"].tokens == 3 * 40 * 32
    plain, rl = (work[f"policy/{name}, training"].memory for name in ("plain", "rl"))
    assert plain is not None
    assert rl is not None
    # Its reference, a classifier, and the trained reward's model of every fold.
    assert rl.weights == plain.weights + (1 + 1 + 5) * 4 * size.parameters


def test_without_folds_one_reward_model_is_trained(tmp_path: Path, size: ModelSize) -> None:
    work = work_of(config_of(tmp_path, folds="off"), size)
    assert work["reward/funny"].tokens == 600 * 2 * 32 * 2


def test_shorter_rows_than_allowed_cost_less_but_take_no_less_memory(tmp_path: Path, size: ModelSize) -> None:
    config = config_of(tmp_path)
    short, long = work_of(config, size, row_tokens=20), work_of(config, size)
    assert short["policy/wic, offline"].tokens == 100 * 4 * 2 * 20
    assert short["orchestrator"].tokens == long["orchestrator"].tokens, "16 tokens are read of 20"
    assert short["policy/wic, offline"].memory == long["policy/wic, offline"].memory


def test_work_is_6_or_8_or_2_times_parameters_and_tokens(tmp_path: Path, size: ModelSize) -> None:
    work = work_of(config_of(tmp_path), size)
    assert work["orchestrator"].flops == 6 * 1992 * 600 * 16 * 3
    assert work["policy/wic, offline"].flops == 8 * 1992 * 100 * 4 * 2 * 64, "activations are computed twice"
    assert work["policy/wic, online"].flops == 6 * 1992 * 2 * 10 * 4 * 64
    assert work["scores, safe"].flops == 2 * 1992 * 1000 * 2 * 32


def test_a_full_training_takes_16_bytes_a_parameter(size: ModelSize) -> None:
    memory = training_memory(size, Tuning(), rows=4, tokens=10, head=True)
    assert memory is not None
    assert (memory.weights, memory.gradients, memory.optimiser) == (4 * 2792, 4 * 2792, 8 * 2792)
    assert memory.activations == 2 * 34 * 4 * 10 * 8 + 8 * 4 * 10 * 100
    assert memory.on() == 16 * 2792 + memory.activations
    assert memory.on(8) == 2 * 2792 + memory.activations, "fsdp2 divides all but activations"


def test_lora_with_gradient_checkpointing_trains_little_and_keeps_little(size: ModelSize) -> None:
    tuning = Tuning(lora_rank=4, gradient_checkpointing=True)
    memory = training_memory(size, tuning, rows=4, tokens=10, head=True)
    assert memory is not None
    assert memory.weights == 2 * 2792 + 4 * 4 * 256, "frozen weights as the checkpoint has them, 16-bit"
    assert (memory.gradients, memory.optimiser) == (4 * 4 * 256, 8 * 4 * 256)
    assert memory.activations == 2 * 4 * 10 * 8 * 2 + 34 * 4 * 10 * 8 + 8 * 4 * 10 * 100


def test_lora_on_two_layers_trains_those_alone(size: ModelSize) -> None:
    tuning = Tuning(lora_rank=4, lora_targets=("q_proj", "v_proj"))
    memory = training_memory(size, tuning, rows=1, tokens=1)
    assert memory is not None
    assert memory.gradients == 4 * 4 * 2 * (16 + 12)


def test_a_device_has_its_share_of_the_rows_and_at_least_one(tmp_path: Path, size: ModelSize) -> None:
    config = config_of(tmp_path)

    def logits(nproc: int) -> float:
        memory = work_of(config, size, nproc=nproc)["policy/wic, online"].memory
        assert memory is not None
        return memory.activations

    assert logits(2) == logits(1) / 2
    assert logits(4) == logits(8) == logits(1) / 4


def test_a_model_of_unknown_size_has_tokens_but_no_work(tmp_path: Path) -> None:
    sizes = dict.fromkeys(("reward", "classifier", "encoder", "policy"))
    config = config_of(tmp_path)
    for load in loads(config, Scale(pairs=assumed_pairs(config, 1000), sizes=sizes)):
        assert load.tokens > 0
        assert (load.flops, load.memory) == (None, None)


def test_pairs_are_counted_where_the_data_are_there(tmp_path: Path) -> None:
    run, config = make_run(tmp_path)
    assert count_pairs(config) is None
    build("data", run, config)
    counted, pairs = count_pairs(config), run.pairs()
    assert counted is not None
    assert counted["funny", "train"] == len(run.pairs("funny", "train"))
    assert sum(number for (_, which), number in counted.items() if which == "all") == len(pairs)


def test_a_run_leaves_its_models_and_two_checkpoints_of_the_largest_training(
    tmp_path: Path, size: ModelSize
) -> None:
    sizes = dict.fromkeys(("reward", "classifier", "encoder", "policy"), size)
    stored = 2 * 2792
    # Nothing of the mixture, whose members are there already.
    expected = 6 * stored + 4 * 2792 + (1 + 3 + 1 + 3 + 4) * stored + 2 * 12 * 2792
    assert written_bytes(config_of(tmp_path, folds=5), sizes) == expected
