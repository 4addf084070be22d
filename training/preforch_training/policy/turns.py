"""How a policy's conversations are written: the base model's own chat template, or ChatML; what ends a turn.

In:  the tokenizer of a base model, and which of the two is wanted.
Out: the template without any context, the token that ends a response, the tokens that must be added for it.

The tokenizer's own beginning of a text (BOS) stands once before a conversation: most templates print it,
ChatML and some others do not, and neither training nor vLLM lets the tokenizer add it to a rendered
conversation.
"""

from dataclasses import dataclass

from jinja2 import TemplateError
from preforch_models.context import begin_with, chat_template, turns_of
from transformers import PreTrainedTokenizerFast

from preforch_training.policy.config import Template

START = "<|im_start|>"
END = "<|im_end|>"
_ANSWER = "forty-two"
_PROBE = ({"role": "user", "content": "question"}, {"role": "assistant", "content": _ANSWER})


@dataclass(frozen=True)
class Turns:
    """`template`: a chat template without context. `end`: the special token that ends a response. `tokens`:
    what a tokenizer must know for the template."""

    template: str
    end: str
    tokens: tuple[str, ...]


def turns_for(tokenizer: PreTrainedTokenizerFast, template: Template) -> Turns:
    """The base model's own turns where it has a chat template and they are asked for, else ChatML.

    Raises ValueError for a template that does not print a question and its answer, or that ends no answer.
    """
    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    if template == "chatml" or own is None:
        return Turns(_beginning_once(tokenizer, chat_template(None)), END, (START, END))
    written = _beginning_once(tokenizer, turns_of(own))
    return Turns(written, _end_of_response(tokenizer, written), ())


def special_ids(tokenizer: PreTrainedTokenizerFast) -> set[int]:
    """Ids of the special tokens."""
    return {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}


def printed_ids(tokenizer: PreTrainedTokenizerFast, template: str) -> set[int]:
    """Ids of the special tokens that a template prints around a question and its answer."""
    ids = tokenizer.encode(_render(tokenizer, template), add_special_tokens=False)
    return set(ids) & special_ids(tokenizer)


def _beginning_once(tokenizer: PreTrainedTokenizerFast, template: str) -> str:
    begins, bare = (tokenizer.encode(_ANSWER, add_special_tokens=added)[0] for added in (True, False))
    bos = tokenizer.bos_token
    if bos is None or begins != tokenizer.bos_token_id or begins == bare:
        return template
    return template if _render(tokenizer, template).lstrip().startswith(bos) else begin_with(bos, template)


def _end_of_response(tokenizer: PreTrainedTokenizerFast, template: str) -> str:
    """The first special token after an answer; the tokenizer's end of text where the template prints none."""
    after = _render(tokenizer, template).rpartition(_ANSWER)[2]
    special = special_ids(tokenizer)
    ids = [i for i in tokenizer.encode(after, add_special_tokens=False) if i in special]
    if ids:
        return str(tokenizer.convert_ids_to_tokens(ids[0]))
    if tokenizer.eos_token is None:
        raise ValueError(
            "the base model's chat template ends no answer and its tokenizer has no end token; "
            'template = "chatml" puts ChatML in its place'
        )
    return str(tokenizer.eos_token)


def _render(tokenizer: PreTrainedTokenizerFast, template: str) -> str:
    try:
        text = str(tokenizer.apply_chat_template(list(_PROBE), chat_template=template, tokenize=False))
    except TemplateError as error:
        raise ValueError(
            f"the base model's chat template does not print a question and its answer: {error}; "
            'template = "chatml" puts ChatML in its place'
        ) from error
    if _ANSWER not in text:
        raise ValueError(
            f"the base model's chat template leaves out an answer: it prints {text!r}; "
            'template = "chatml" puts ChatML in its place'
        )
    return text
