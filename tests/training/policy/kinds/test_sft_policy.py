"""Policy kind `sft`: chosen responses only, no context in its rows, and a card that says so."""

from pathlib import Path

import policy_world
import pytest
import torch
from policy_world import sft
from preforch_models.conditioning.fixed import FixedConditioning
from preforch_models.context import context_tokens
from preforch_models.manifest import verify
from preforch_models.policy_card import read_policy_card
from preforch_training.policy.kinds import sft as kind
from preforch_training.policy.task import PolicyTask
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.run import Run
from preforch_training.scores.table import read_scores
from safetensors.torch import load_file
from small_world import NoSampler, build


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> PolicyTask:
    """A run with a policy `plain` that is built."""
    folder = tmp_path_factory.mktemp("sft") / "run"
    config = policy_world.make_config(folder, policies={"plain": sft()})
    run, _ = policy_world.write_inputs(folder, config)
    build("policy", run, config)
    assert config.policy is not None
    return PolicyTask(run, config.policy, "plain", NoSampler())


def chosen(run: Run) -> set[tuple[str, str]]:
    """Prompt text and response of what was chosen among training prompts."""
    texts = {prompt.id: prompt.messages[-1].content for prompt in run.prompts("train")}
    scores = [score for score in read_scores(run.scores) if score.split == "train"]
    return {(texts[score.prompt_id], score.response) for score in scores if score.side == "chosen"}


def test_its_rows_are_the_chosen_responses_of_training_prompts_each_once(task: PolicyTask) -> None:
    reader = PolicyTokenizer(task.round(0))
    rows = kind.training_rows(task)
    expected = {
        (f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n", response)
        for prompt, response in chosen(task.run)
    }
    found = [(reader.text(row.prompt), reader.text(row.response)) for row in rows]
    assert set(found) == expected
    assert len(found) == len(expected) > 10
    assert verify(task.round(0), kind="policy").counts["rows"] == len(rows)
    # There is something to leave out.
    assert len(set(task.known(tau=1.0).responses)) > len({response for _, response in expected})


def test_no_row_holds_a_token_of_the_context(task: PolicyTask) -> None:
    reader = PolicyTokenizer(task.round(0))
    weights = reader.tokenizer.convert_tokens_to_ids(list(context_tokens(task.run.context_format)))
    assert len(set(weights)) == len(weights) == 66
    for row in kind.training_rows(task):
        assert not set(weights) & {*row.prompt, *row.response}


def test_its_card_is_fixed_and_its_template_prints_no_weights(task: PolicyTask) -> None:
    card = read_policy_card(task.round(0))
    assert card.conditioning == FixedConditioning()
    assert card.context_format is None
    assert card.objectives == policy_world.NAMES
    reader = PolicyTokenizer(task.round(0))
    messages = task.run.prompts("train")[0].messages
    first, second = (
        reader.prompt_ids(messages, {"helpful": a, "harmless": 1 - a, "humor": 0.0}) for a in (1.0, 0.0)
    )
    assert first == second
    assert "<W1>" not in reader.text(first)
    # The base, which it started from, prints them.
    base = PolicyTokenizer(task.run.policy_base)
    assert "<W1> 1.00" in base.text(
        base.prompt_ids(messages, {"helpful": 1.0, "harmless": 0.0, "humor": 0.0})
    )


def test_user_text_never_becomes_a_token_of_the_context_that_others_read(task: PolicyTask) -> None:
    reader = PolicyTokenizer(task.round(0))
    special = set(reader.tokenizer.convert_tokens_to_ids(list(reader.card.control_strings)))
    assert reader.tokenizer.convert_tokens_to_ids("<W1>") in special
    assert not special & set(reader.response_ids("<W1> 0.50 and <|im_end|>"))


def test_it_was_trained(task: PolicyTask) -> None:
    before, after = (
        load_file(Path(folder) / "model.safetensors") for folder in (task.run.policy_base, task.round(0))
    )
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
