"""Reward kind `classifier`: what is scored does not depend on what is scored beside it."""

from pathlib import Path

import numpy as np
import pytest
import small_world
import tiny_classifiers
import torch
from preforch_training.reward.config import ClassifierReward
from preforch_training.reward.texts import classifier_texts
from reward_world import PROMPTS, RESPONSES, reward
from small_world import FUNNY, SAFE, make_prompt
from transformers import AutoModelForSequenceClassification, AutoTokenizer


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


TEXTS = {
    "gpt2": "hh",
    "gpt2-summary": "summary",
    "deberta": "pair",
    "bart": "pair_reversed",
    "bert-pair": "pair",
}


# transformers compiles a part of DeBERTa in a way that torch discourages.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ClassifierReward]:
    """Random models of the architectures of public reward models, as those read."""
    folder = tmp_path_factory.mktemp("public")
    small_world.write_bert_classifier(folder / "bert-pair")
    tiny_classifiers.write_gpt2(folder / "gpt2")
    tiny_classifiers.write_gpt2(folder / "gpt2-summary")
    tiny_classifiers.write_deberta(folder / "deberta")
    tiny_classifiers.write_bart(folder / "bart")
    return {
        name: ClassifierReward(model=str(folder / name), text=text, max_tokens=48)
        for name, text in TEXTS.items()
    }


@pytest.mark.parametrize("name", TEXTS)
def test_public_architectures_score_alike_alone_and_in_company(
    public: dict[str, ClassifierReward], name: str
) -> None:
    config = public[name]
    alone = np.array([reward(config, [p], [r])[0] for p, r in zip(PROMPTS, RESPONSES, strict=True)])
    assert np.ptp(alone) > 0.01
    np.testing.assert_allclose(reward(config), alone, atol=1e-4)
    np.testing.assert_allclose(reward(config, PROMPTS[::-1], RESPONSES[::-1])[::-1], alone, atol=1e-4)


def test_a_model_without_a_pad_token_reads_the_last_token_of_every_text(
    public: dict[str, ClassifierReward],
) -> None:
    """RiC's way: one text at a time, no padding at all."""
    path = public["gpt2"].model
    tokenizer, model = (
        AutoTokenizer.from_pretrained(path),
        AutoModelForSequenceClassification.from_pretrained(path),
    )
    assert tokenizer.pad_token is None
    expected = []
    for prompt, response in zip(PROMPTS[:3], RESPONSES[:3], strict=True):
        (text,) = classifier_texts(tokenizer, public["gpt2"], [prompt], [response])
        batch = tokenizer(text.first, text.second, return_tensors="pt")
        with torch.inference_mode():
            expected.append(model(**batch).logits[0, 0].item())
    config = public["gpt2"].model_copy(update={"max_tokens": 4096})
    np.testing.assert_allclose(reward(config, PROMPTS[:3], RESPONSES[:3]), expected, atol=1e-4)


def test_segments_count_where_a_model_tells_them_apart(public: dict[str, ClassifierReward]) -> None:
    path = public["bert-pair"].model
    tokenizer, model = (
        AutoTokenizer.from_pretrained(path),
        AutoModelForSequenceClassification.from_pretrained(path),
    )
    batch = tokenizer(PROMPTS[0].text, RESPONSES[0], return_tensors="pt", return_token_type_ids=True)
    with torch.inference_mode():
        expected = model.eval()(**batch).logits[0, 0].item()
        batch["token_type_ids"].zero_()
        without = model(**batch).logits[0, 0].item()
    (found,) = reward(public["bert-pair"], PROMPTS[:1], RESPONSES[:1])
    assert found == pytest.approx(expected, abs=1e-4)
    assert abs(found - without) > 1e-3


def test_a_reward_may_be_minus_the_logit(classifiers: dict[str, ClassifierReward]) -> None:
    config = classifiers["bert"]
    np.testing.assert_array_equal(reward(config.model_copy(update={"negate": True})), -reward(config))


def test_a_label_that_a_classifier_lacks_is_refused(classifiers: dict[str, ClassifierReward]) -> None:
    with pytest.raises(ValueError, match="has 2 labels, no label 2"):
        reward(classifiers["bert"].model_copy(update={"label": 2}))


def test_a_model_without_a_head_is_refused(encoder: Path) -> None:
    with pytest.raises(
        ValueError, match=r"is no classifier: it has no \['classifier\.bias', 'classifier\.weight'\]"
    ):
        reward(ClassifierReward(model=str(encoder)))


def test_a_text_is_never_longer_than_the_positions_of_the_model(
    classifiers: dict[str, ClassifierReward],
) -> None:
    long = [make_prompt(" ".join(["old text"] * 200))]
    config = classifiers["bert"].model_copy(update={"max_tokens": 4096})
    assert np.isfinite(reward(config, long, [FUNNY])).all()


def test_half_precision_is_scored_in_32_bits(
    classifiers: dict[str, ClassifierReward], tmp_path: Path
) -> None:
    path = classifiers["qwen"].model
    half = AutoModelForSequenceClassification.from_pretrained(path).to(torch.bfloat16)
    half.save_pretrained(tmp_path / "half")
    half.float().save_pretrained(tmp_path / "whole")
    for name in ("half", "whole"):
        AutoTokenizer.from_pretrained(path).save_pretrained(tmp_path / name)
    first, second = (reward(ClassifierReward(model=str(tmp_path / name))) for name in ("half", "whole"))
    np.testing.assert_array_equal(first, second)
