"""Sizes of models by their config.json: known numbers, and a model that can be counted by hand."""

from pathlib import Path

import plan_world
import pytest
from plan_world import write_config
from preforch_training.plan.sizes import Use, find_config, measure
from transformers import PretrainedConfig


def test_a_model_that_can_be_counted_by_hand(tmp_path: Path) -> None:
    size = measure(write_config(tmp_path, plan_world.COUNTABLE), "policy")
    assert size.parameters == 800 + 800 + 2 * 592 + 8
    assert size.multiplied == size.parameters - 800, "all but the input embeddings"
    # In and out: queries 16, keys 12, values 12, output 16; three times 24.
    assert size.lora(1) == 2 * (16 + 12 + 12 + 16 + 3 * 24)
    assert size.lora(8, ("q_proj", "v_proj")) == 8 * 2 * (16 + 12)
    assert size.cached == 2 * 2 * 1 * 4, "keys and values of 2 layers, 1 head of width 4"
    assert (size.layers, size.hidden, size.vocabulary) == (2, 8, 100)
    assert size.stored == 2 * size.parameters


@pytest.mark.parametrize(
    ("config", "use", "parameters"),
    [
        (plan_world.LLAMA_2_7B, "policy", 6_738_415_616),
        (plan_world.QWEN_25_7B, "policy", 7_615_616_512),
        (plan_world.QWEN_25_05B, "policy", 494_032_768),
        (plan_world.XLM_R_BASE, "encoder", 278_043_648),
        # As published without a head, and the head.
        (plan_world.GPT2_LARGE, "reward", 774_030_080 + 1280),
        (plan_world.DISTILBERT, "reward", 66_362_880 + 768 * 769 + 2 * 769),
    ],
    ids=["LLaMA-2-7B", "Qwen2.5-7B", "Qwen2.5-0.5B", "XLM-R-base", "gpt2-large", "DistilBERT"],
)
def test_a_known_model_has_its_published_number_of_parameters(
    tmp_path: Path, config: PretrainedConfig, use: Use, parameters: int
) -> None:
    assert measure(write_config(tmp_path, config), use).parameters == parameters


def test_lora_of_rank_64_on_llama_2_7b_has_160_million_parameters(tmp_path: Path) -> None:
    assert measure(write_config(tmp_path, plan_world.LLAMA_2_7B), "policy").lora(64) == 159_907_840


def test_tied_embeddings_are_multiplied_with_as_the_head(tmp_path: Path) -> None:
    size = measure(write_config(tmp_path, plan_world.QWEN_25_05B), "policy")
    assert size.multiplied == size.parameters


def test_gpt2s_own_linear_layers_take_lora(tmp_path: Path) -> None:
    size = measure(write_config(tmp_path, plan_world.GPT2_LARGE), "policy")
    # Attention 4 x 1280 and 2 x 1280, then 5 x 1280 twice.
    assert size.lora(1) == 36 * 16 * 1280


def test_a_config_is_looked_for_where_the_user_says_and_in_local_folders(tmp_path: Path) -> None:
    folder, empty = write_config(tmp_path / "a", plan_world.COUNTABLE), tmp_path / "empty"
    empty.mkdir()

    def find(model: str, **folders: Path) -> Path | None:
        return find_config(model, revision="main", folders=folders, reachable=False)

    assert find(str(folder)) == folder
    assert find("some/model", **{"some/model": folder}) == folder
    assert find("some/model") is None
    with pytest.raises(ValueError, match=r"empty: no config\.json, which says how large some/model is"):
        find("some/model", **{"some/model": empty})
