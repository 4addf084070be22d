"""Reward kind `classifier`: what is scored does not depend on what is scored beside it."""

from pathlib import Path

import numpy as np
import pytest
import small_world
from preforch_training.reward.config import ClassifierReward
from reward_world import PROMPTS, RESPONSES, reward
from small_world import FUNNY, SAFE, make_prompt
from transformers import AutoTokenizer


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ClassifierReward]:
    """Tiny random classifiers, by architecture and padding side."""
    folder = tmp_path_factory.mktemp("classifiers")
    small_world.write_bert_classifier(folder / "bert")
    small_world.write_qwen_classifier(folder / "qwen")
    small_world.write_qwen_classifier(folder / "qwen-left", padding="left")
    return {
        name: ClassifierReward(model=str(folder / name), max_tokens=48)
        for name in ("bert", "qwen", "qwen-left")
    }


@pytest.mark.parametrize("name", ["bert", "qwen", "qwen-left"])
def test_scores_do_not_depend_on_batch_size_padding_or_order(
    classifiers: dict[str, ClassifierReward], name: str
) -> None:
    config = classifiers[name]
    alone = np.array([reward(config, [p], [r])[0] for p, r in zip(PROMPTS, RESPONSES, strict=True)])
    assert np.ptp(alone) > 0.01
    for size in (1, 2, 5):
        together = reward(config.model_copy(update={"batch_size": size}))
        np.testing.assert_allclose(together, alone, atol=1e-4)
    backwards = reward(config, PROMPTS[::-1], RESPONSES[::-1])
    np.testing.assert_allclose(backwards[::-1], alone, atol=1e-4)


@pytest.mark.parametrize("name", ["bert", "qwen"])
def test_a_long_conversation_loses_its_beginning_and_never_the_response(
    classifiers: dict[str, ClassifierReward], name: str
) -> None:
    config = classifiers[name].model_copy(update={"max_tokens": 40})
    tail = " ".join(["old text"] * 40)
    base = reward(config, [make_prompt(f"joke {tail}")], [FUNNY])[0]
    other_beginning = reward(config, [make_prompt(f"danger {tail}")], [FUNNY])[0]
    other_response = reward(config, [make_prompt(f"joke {tail}")], [SAFE])[0]
    assert other_beginning == pytest.approx(base, abs=1e-6)
    assert abs(other_response - base) > 1e-3


def test_the_logit_of_the_asked_label_is_the_reward(classifiers: dict[str, ClassifierReward]) -> None:
    first, second = (reward(classifiers["bert"].model_copy(update={"label": label})) for label in (0, 1))
    assert np.abs(first - second).min() > 1e-4


def test_a_chat_template_writes_the_special_tokens_and_none_are_added(tmp_path: Path) -> None:
    """With brackets of its own and a template, a text must not begin with two [CLS]."""
    folder = small_world.write_bert_classifier(tmp_path / "templated")
    template = "[CLS] {% for m in messages %}{{ m.content }} {% endfor %}[SEP]"
    plain = reward(ClassifierReward(model=str(folder), max_tokens=48))
    small_world.save_tokenizer(folder, brackets=True, chat_template=template)
    templated = reward(ClassifierReward(model=str(folder), max_tokens=48))
    small_world.save_tokenizer(folder, brackets=False, chat_template=template)
    bare = reward(ClassifierReward(model=str(folder), max_tokens=48))
    np.testing.assert_allclose(templated, bare, atol=1e-6)
    assert np.abs(templated - plain).max() > 1e-4
    assert AutoTokenizer.from_pretrained(folder).chat_template == template
