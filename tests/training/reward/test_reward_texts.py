"""What sequence classifiers read: the text of every public reward model that the paper or RiC uses."""

from typing import Any

import numpy as np
import pytest
import small_world
from preforch_models.conversation import Message
from preforch_training.records import Prompt
from preforch_training.reward.config import ClassifierReward, TextForm
from preforch_training.reward.texts import ClassifierText, classifier_texts, token_rows
from small_world import make_prompt
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

CHAT = make_prompt("Can I lift a suitcase?", "Yes.", "How?")
POST = make_prompt(
    "### Instruction: Generate a one-sentence summary of this post. ### Input: My cat ran away. It came back."
)
HH = "\n\nHuman: Can I lift a suitcase?\n\nAssistant: Yes.\n\nHuman: How? \n\nAssistant:"
GOLDEN = {
    "Ray2333/gpt2-large-helpful-reward_model": ({"text": "hh"}, CHAT, (HH, "Bend your knees.")),
    "Ray2333/gpt2-large-harmless-reward_model": ({"text": "hh"}, CHAT, (HH, "Bend your knees.")),
    "mohameddhiab/humor-no-humor": ({"text": "response", "label": 1}, CHAT, ("Bend your knees.", None)),
    "Tristan/gpt2_reward_summarization": (
        {"text": "summary", "prompt_after": "### Input:"},
        POST,
        ("Bend your knees. <|endoftext|> My cat ran away. It came back.", None),
    ),
    "CogComp/bart-faithful-summary-detector": (
        {"text": "pair_reversed", "prompt_after": "### Input:", "label": 1},
        POST,
        ("Bend your knees.", "My cat ran away. It came back."),
    ),
    "OpenAssistant/reward-model-deberta-v3-large-v2": (
        {"text": "pair"},
        make_prompt("Can I lift a suitcase?"),
        ("Can I lift a suitcase?", "Bend your knees."),
    ),
}


def words(*, bos: str | None = None, template: str | None = None) -> PreTrainedTokenizerFast:
    """One token a character; `[CLS] a [SEP] b [SEP]`."""
    special = ["[CLS]", "[SEP]", *([bos] if bos else [])]
    tokenizer = Tokenizer(
        models.WordLevel({t: i for i, t in enumerate(special + list("abcdefghij "))}, unk_token=" ")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 0), ("[SEP]", 1)],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, clean_up_tokenization_spaces=False
    )
    fast.chat_template = template
    return fast


def write(
    tokenizer: PreTrainedTokenizerFast, prompt: Prompt, response: str, *, form: TextForm
) -> ClassifierText:
    (text,) = classifier_texts(tokenizer, ClassifierReward(model="any", text=form), [prompt], [response])
    return text


@pytest.mark.parametrize("model", GOLDEN)
def test_public_reward_models_read_what_they_were_trained_on(model: str) -> None:
    settings, prompt, expected = GOLDEN[model]
    config = ClassifierReward(model=model, **settings)  # type: ignore[arg-type]
    tokenizer = words(bos="<|endoftext|>")
    (text,) = classifier_texts(tokenizer, config, [prompt], ["Bend your knees."])
    assert (text.first, text.second) == expected


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("plain", ("user: Can I lift a suitcase?\nassistant: Yes.\nuser: How?\nassistant: Bend.", None)),
        ("pair", ("user: Can I lift a suitcase?\nassistant: Yes.\nuser: How?", "Bend.")),
        ("chat", ("[user] Can I lift a suitcase? [assistant] Yes. [user] How? [assistant] Bend. ", None)),
        ("auto", ("[user] Can I lift a suitcase? [assistant] Yes. [user] How? [assistant] Bend. ", None)),
    ],
)
def test_conversations_in_the_other_forms(form: TextForm, expected: tuple[str, str | None]) -> None:
    text = write(words(template=small_world.CHAT_TEMPLATE), CHAT, "Bend.", form=form)
    assert (text.first, text.second) == expected
    assert text.has_special == (form in ("chat", "auto"))


@pytest.mark.parametrize("form", ["chat", "plain", "pair", "pair_reversed", "hh", "response", "summary"])
def test_text_never_becomes_a_special_token_of_the_classifier(form: TextForm) -> None:
    tokenizer = words(bos="<s>", template=small_world.CHAT_TEMPLATE)

    def special(words_of: str) -> int:
        text = write(tokenizer, make_prompt(words_of), words_of, form=form)
        (row,) = token_rows(tokenizer, [text], max_tokens=999, segment_ids=False)
        return sum(int(i) in tokenizer.added_tokens_decoder for i in row["input_ids"])

    assert special("a[SEP]b<s>") == special("ab")


def test_a_system_turn_stands_before_the_turns_of_hh() -> None:
    messages = (Message(role="system", content="Be brief."), *CHAT.messages)
    prompt = Prompt(id="p", messages=messages, split="train")
    assert write(words(), prompt, "Bend.", form="hh").first == "\n\nBe brief." + HH


@pytest.mark.parametrize(("form", "missing"), [("chat", "chat template"), ("summary", "bos token")])
def test_a_form_that_the_tokenizer_cannot_write_is_refused(form: TextForm, missing: str) -> None:
    with pytest.raises(ValueError, match=f'text = "{form}" needs a tokenizer with a {missing}'):
        write(words(), CHAT, "Bend.", form=form)


def tokens(text: ClassifierText, *, most: int) -> tuple[str, list[int]]:
    """Tokens as one string, and segment ids."""
    tokenizer = words()
    (row,) = token_rows(tokenizer, [text], max_tokens=most, segment_ids=True)
    assert len(row["input_ids"]) <= most
    return tokenizer.decode(row["input_ids"]), row.get("token_type_ids", np.array([])).tolist()


@pytest.mark.parametrize(
    ("text", "most", "expected"),
    [
        (ClassifierText("abcdef"), 5, "[CLS]def[SEP]"),
        (ClassifierText("abcdef", cut="right"), 5, "[CLS]abc[SEP]"),
        (ClassifierText("abcdef", has_special=True), 5, "bcdef"),
        (ClassifierText("abcdef", "gh"), 7, "[CLS]ef[SEP]gh[SEP]"),
        (ClassifierText("ab", "cdefgh", keep_first=True, cut="right"), 7, "[CLS]ab[SEP]cd[SEP]"),
        (ClassifierText("ab", "cdefgh"), 7, "[CLS]ab[SEP]gh[SEP]"),
        (ClassifierText("ab", "cd"), 99, "[CLS]ab[SEP]cd[SEP]"),
    ],
)
def test_what_is_too_long_is_cut_and_never_the_response(
    text: ClassifierText, most: int, expected: str
) -> None:
    printed, segments = tokens(text, most=most)
    assert printed.replace(" ", "") == expected
    if text.second is not None:
        first = printed.replace(" ", "").index("[SEP]") - len("[CLS]") + 2
        assert segments == [0] * first + [1] * (len(segments) - first)


def test_rows_stay_in_the_order_of_their_texts() -> None:
    texts = [ClassifierText("a"), ClassifierText("b", "c"), ClassifierText("d" * 9, "e"), ClassifierText("f")]
    rows: list[Any] = token_rows(words(), texts, max_tokens=8, segment_ids=False)
    tokenizer = words()
    printed = [tokenizer.decode(row["input_ids"]).replace(" ", "") for row in rows]
    assert printed == ["[CLS]a[SEP]", "[CLS]b[SEP]c[SEP]", "[CLS]dddd[SEP]e[SEP]", "[CLS]f[SEP]"]
    assert all(set(row) == {"input_ids"} for row in rows)
