"""The base of all policies: its vocabulary, its context tokens, and how their rows start."""

from pathlib import Path

import pytest
import tiny
import tiny_models
import torch
from preforch_models.context import ContextFormat, context_tokens
from preforch_models.policy_card import read_policy_card
from preforch_training.policy.base_model import add_context, load_base, new_model, train_tokenizer
from preforch_training.policy.config import Scratch
from preforch_training.policy.tokenizer import PolicyTokenizer
from tokenizers import AddedToken, normalizers
from transformers import AutoModelForCausalLM

NAMES = ("helpful", "harmless", "humor")
LEVELS = ContextFormat(objectives=NAMES, encoding="levels")
DIGITS = ContextFormat(objectives=NAMES, encoding="digits")


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_policy(tmp_path_factory.mktemp("policy") / "levels", LEVELS)


def test_new_rows_do_not_depend_on_what_was_drawn_before(tmp_path: Path) -> None:
    folder = tiny_models.write_family("llama2", tmp_path / "base")
    found = []
    for drawn_before in (1, 2):
        torch.manual_seed(drawn_before)
        model, tokenizer = load_base(str(folder), revision="main")
        rows = model.get_input_embeddings().weight.shape[0]
        add_context(model, tokenizer, DIGITS, seed=0)
        assert model.get_input_embeddings().weight.shape[0] > rows
        found.append(model.get_input_embeddings().weight.detach().clone())
    assert tokenizer.pad_token == "<pad>", "a row that is made of no pieces"
    assert torch.equal(*found)


def test_words_of_the_training_texts_are_one_token_each() -> None:
    tokenizer = train_tokenizer(["the red bicycle is red and the kettle is heavy"] * 3, vocabulary=400)
    for word in (" red", " bicycle", " kettle", " heavy", "user", "assistant"):
        assert len(tokenizer.encode(word)) == 1, word


def test_every_digit_and_line_break_is_a_token_of_its_own() -> None:
    tokenizer = train_tokenizer(["12 + 5 = 17\nAnswer: 17\n"] * 9, vocabulary=400)
    text = "12 + 5 = 17.\nAnswer: 17"
    ids = tokenizer.encode(text)
    pieces = [tokenizer.decode([i]) for i in ids]
    assert tokenizer.decode(ids) == "".join(pieces) == text
    assert [piece for piece in pieces if any(c.isdigit() for c in piece)] == [c for c in text if c.isdigit()]
    assert [piece for piece in pieces if "\n" in piece] == ["\n"]
    assert "Answer" in pieces


def test_new_rows_start_as_the_mean_of_their_pieces() -> None:
    tokenizer = train_tokenizer(tiny.TEXTS, vocabulary=300)
    model = new_model(len(tokenizer), Scratch(width=32, heads=1, layers=1), max_model_len=64, seed=0)
    before = model.get_input_embeddings().weight.detach().clone()
    pieces = tokenizer.encode("<W2>")
    add_context(model, tokenizer, DIGITS, seed=0)
    row = model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids("<W2>")]
    assert len(pieces) > 1
    torch.testing.assert_close(row, before[pieces].mean(dim=0))


def test_levels_start_on_a_line(levels: Path) -> None:
    model, reader = AutoModelForCausalLM.from_pretrained(levels), PolicyTokenizer(levels)
    ids = [reader.tokenizer.convert_tokens_to_ids(f"<W2> {step / 20:.2f}") for step in range(21)]
    steps = model.get_input_embeddings().weight[ids].diff(dim=0)
    assert steps[0].norm() > 0
    torch.testing.assert_close(steps, steps[:1].expand_as(steps), atol=1e-6, rtol=0)


def test_the_card_names_every_special_token(levels: Path) -> None:
    card = read_policy_card(levels)
    expected = {"<|im_start|>", "<|im_end|>", "<|endoftext|>", *context_tokens(LEVELS)}
    assert set(card.control_strings) == expected


def test_a_context_can_be_added_to_a_pretrained_checkpoint_twice(levels: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(levels), PolicyTokenizer(levels).tokenizer
    size = len(tokenizer)
    assert add_context(model, tokenizer, LEVELS, seed=0) == []
    assert len(tokenizer) == size


def test_special_tokens_of_a_base_are_matched_as_written_once_the_context_is_added() -> None:
    tokenizer = train_tokenizer(tiny.TEXTS, vocabulary=300)
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    tokenizer.add_tokens(
        [AddedToken("<|eot_id|>", special=True, normalized=True, rstrip=True)], special_tokens=True
    )
    (end,) = tokenizer.encode("<|eot_id|>")
    assert end in tokenizer.encode("＜|eot_id|＞")
    model = new_model(
        len(tokenizer), Scratch(vocabulary=300, width=32, layers=1, heads=1), max_model_len=64, seed=0
    )
    add_context(model, tokenizer, DIGITS, seed=0)
    assert end not in tokenizer.encode("＜|eot_id|＞")
    assert tokenizer.encode("<|eot_id|>  ") == [end]


def test_a_tokenizer_that_makes_a_special_token_of_escaped_text_is_refused() -> None:
    tokenizer = tiny_models.tokenizer_of(tiny_models.FAMILIES["llama2"])
    # The first byte of U+2060, which escaping adds.
    tokenizer.add_tokens([AddedToken("<0xE2>", special=True, normalized=False)], special_tokens=True)
    model = new_model(len(tokenizer), Scratch(width=32, heads=1, layers=1), max_model_len=64, seed=0)
    with pytest.raises(ValueError, match=r"makes the special tokens \['<0xE2>'\] of the text"):
        add_context(model, tokenizer, DIGITS, seed=0)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('only tools') }}", "does not print a question and its answer: only tools"),
        ("{{ messages[0].content }}", "leaves out an answer"),
    ],
)
def test_a_template_that_cannot_hold_a_conversation_is_refused_and_chatml_can_take_its_place(
    template: str, message: str
) -> None:
    tokenizer = tiny_models.tokenizer_of(tiny_models.FAMILIES["llama2"])
    tokenizer.chat_template = template
    model = new_model(len(tokenizer), Scratch(width=32, heads=1, layers=1), max_model_len=64, seed=0)
    with pytest.raises(ValueError, match=message):
        add_context(model, tokenizer, DIGITS, seed=0)
    add_context(model, tokenizer, DIGITS, seed=0, template="chatml")
    assert tokenizer.eos_token == "<|im_end|>"
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, weights=dict.fromkeys(NAMES, 1 / 3)
    )
    assert text == "<s><|im_start|>user\nHi <W1> 0.33 <W2> 0.33 <W3> 0.33<|im_end|>\n"
