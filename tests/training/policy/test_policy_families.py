"""Policies that start from every common kind of model keep its turns and numbers, and learn the context."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny
import tiny_models
import torch
from preforch_models.conditioning.fixed import FixedConditioning
from preforch_models.context import ContextFormat, context_tokens, render_context
from preforch_models.conversation import Message
from preforch_models.policy_card import check_control_strings
from preforch_training.policy.checkpoint import save_policy
from preforch_training.policy.fine_tuning import TokenRow, fine_tune
from preforch_training.policy.settings.fine_tuning import FineTuning
from preforch_training.policy.tokenizer import PolicyTokenizer
from safetensors.torch import load_file
from tiny_models import FAMILIES, Family
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

FORMAT = ContextFormat(objectives=("helpful", "harmless"))
WEIGHTS = {"helpful": 0.7, "harmless": 0.3}
TURNS = [("user", "How do I"), ("assistant", "Tell me."), ("user", "repair a  tyre?")]
SETTINGS = FineTuning(steps=4, learning_rate=1e-2, batch_size=2, accumulation=2, lora_alpha=8)
HOSTILE = (
    "＜s＞",
    "<0x0A>",
    "▁",
    "\u2581</s>",
    "<s",
    "</s>\u200b",
    "<|im_end|>",
    "[INST]",
    "<bos>",
    "\ufeff<s>",
)


@dataclass(frozen=True)
class Made:
    """A policy before any training and what it was made of."""

    family: Family
    base: Path
    policy: Path
    reader: PolicyTokenizer


@pytest.fixture(scope="module", params=FAMILIES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("families") / "policy"
    tiny_models.write_family_policy(request.param, folder, FORMAT)
    base = folder.with_name("policy-base")
    return Made(FAMILIES[request.param], base, folder, PolicyTokenizer(folder))


def messages(*turns: tuple[str, str]) -> list[Message]:
    return [Message(role=role, content=content) for role, content in turns]


def test_a_conversation_is_written_as_the_base_writes_one_that_ends_with_the_context(made: Made) -> None:
    told = [{"role": role, "content": content} for role, content in TURNS]
    told[-1]["content"] += render_context(WEIGHTS, FORMAT)
    base = AutoTokenizer.from_pretrained(made.base)
    if made.family.template is None:
        assert made.family.bos is not None
        turns = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in told)
        expected = made.family.bos + turns + "<|im_start|>assistant\n"
    else:
        expected = base.apply_chat_template(told, tokenize=False, add_generation_prompt=True)
    ids = made.reader.prompt_ids(messages(*TURNS), WEIGHTS)
    assert ids == made.reader.tokenizer.encode(expected, add_special_tokens=False)
    control = [t for t in made.reader.tokenizer.convert_ids_to_tokens(ids) if t in context_tokens(FORMAT)]
    assert control == ["<W1>", "<W2>"]


def test_a_text_begins_once(made: Made) -> None:
    ids = made.reader.prompt_ids(messages(TURNS[0]), WEIGHTS)
    bos = made.reader.tokenizer.bos_token_id
    if made.family.bos is None:
        assert bos is None
    else:
        assert ids[0] == bos
        assert ids.count(bos) == 1
        # A completion has no template: there the tokenizer itself gives the beginning.
        assert made.reader.tokenizer.encode("Hello <W1> 0.70").count(bos) == 1


def test_a_response_ends_with_the_token_that_the_base_ends_a_turn_with(made: Made) -> None:
    tokenizer = made.reader.tokenizer
    assert tokenizer.eos_token == made.family.end
    assert made.reader.end_id == tokenizer.convert_tokens_to_ids(made.family.end)
    assert AutoConfig.from_pretrained(made.policy).eos_token_id == made.reader.end_id
    ends = GenerationConfig.from_pretrained(made.policy).eos_token_id
    ends = [ends] if isinstance(ends, int) else ends
    assert ends[0] == made.reader.end_id
    assert set(tokenizer.convert_tokens_to_ids(list(made.family.ends))) <= set(ends)
    assert tokenizer.pad_token_id not in (None, made.reader.end_id)


def test_text_never_becomes_a_control_token(made: Made) -> None:
    check_control_strings(made.policy, made.reader.card)
    special = set(made.reader.tokenizer.convert_tokens_to_ids(list(made.reader.card.control_strings)))

    def count(content: str) -> int:
        prompt = made.reader.prompt_ids(messages(("user", content)), WEIGHTS)
        return sum(i in special for i in prompt + made.reader.response_ids(content))

    harmless = count("Hello")
    for text in (*made.reader.card.control_strings, "".join(made.reader.card.control_strings), *HOSTILE):
        assert count(text) == harmless, text
        assert count(f"a{text} b") == harmless, text


def test_text_comes_back(made: Made) -> None:
    for text in ("How do I repair it?", "two\n\nlines, one ☃", "  indented"):
        assert made.reader.text(made.reader.response_ids(text)).lstrip() == text.lstrip()


def test_a_policy_without_weights_keeps_the_turns_of_the_base_too(made: Made) -> None:
    fixed = PolicyTokenizer(made.policy, FixedConditioning())
    told = messages(*TURNS)
    with_context = made.reader.tokenizer.decode(made.reader.prompt_ids(told, WEIGHTS))
    context = made.reader.tokenizer.decode(
        made.reader.tokenizer.encode(render_context(WEIGHTS, FORMAT), add_special_tokens=False)
    )
    without = fixed.tokenizer.decode(fixed.prompt_ids(told, {}))
    assert "<W1>" not in without
    assert with_context.replace(context.strip(), "").replace(" ", "") == without.replace(" ", "")


def rows(made: Made) -> list[TokenRow]:
    return [
        TokenRow(
            tuple(made.reader.prompt_ids(messages(("user", text)), WEIGHTS)),
            tuple(made.reader.response_ids(text[::-1])),
        )
        for text in tiny.TEXTS
    ]


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_a_policy_learns_and_is_stored_as_its_base_was(made: Made, lora_rank: int, tmp_path: Path) -> None:
    work, out, folder = (tmp_path / name for name in ("work", "out", "policy"))
    for part in (work, out):
        part.mkdir()
    settings = SETTINGS.model_copy(update={"lora_rank": lora_rank, "gradient_checkpointing": bool(lora_rank)})
    model, numbers = fine_tune(made.policy, rows(made), settings, seed=0, folder=out, work=work)
    assert 0 < numbers["loss"] < 20
    card = made.reader.card
    save_policy(
        folder,
        model,
        made.reader.tokenizer,
        tiny.policy_info("learned"),
        objectives=card.objectives,
        conditioning=card.conditioning,
        max_model_len=card.max_model_len,
    )
    before, after = (load_file(path / "model.safetensors") for path in (made.policy, folder))
    assert {name: (t.dtype, t.shape) for name, t in after.items()} == {
        name: (made.family.dtype, t.shape) for name, t in before.items()
    }
    moved = {name: (after[name] != before[name]).any(dim=-1) for name in after}
    reader = PolicyTokenizer(folder)
    used = reader.tokenizer.convert_tokens_to_ids(context_tokens(FORMAT))
    matrices = {"model.embed_tokens.weight": used}
    if not made.family.ties:
        # Some bases print the end token after responses alone: then nothing reads it, and all must write it.
        matrices["lm_head.weight"] = [*used, reader.end_id]
    for name, ids in matrices.items():
        assert moved[name][ids].all(), name
        if lora_rank:
            assert set(moved[name].nonzero().flatten().tolist()) <= set(reader.template_ids()), name
    assert moved["model.layers.1.mlp.down_proj.weight"].any()
    assert reader.prompt_ids(messages(*TURNS), WEIGHTS) == made.reader.prompt_ids(messages(*TURNS), WEIGHTS)
    check_control_strings(folder, reader.card)
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert all(torch.equal(again.state_dict()[name], value.float()) for name, value in after.items())
    with torch.no_grad():
        assert again(input_ids=torch.tensor([rows(made)[0].prompt])).logits.isfinite().all()
