"""A policy of kind `scores` finds desired rewards in its prompt; its template is given weights."""

import asyncio
from collections.abc import Mapping

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from preforch_models.conditioning.scores import ScoresConditioning
from preforch_models.context import chat_template, context_tokens
from preforch_models.policy_card import PolicyCard
from preforch_service.conditioning import conditioner_of
from preforch_service.conditioning.rendering import TemplateError
from preforch_service.conditioning.scores import ScoresConditioner

WEIGHTS = {"helpful": 1.0, "harmless": 0.0, "humor": 0.0}
CONDITIONING = ScoresConditioning(
    encoding="levels", mapping="l2", low=(-1.0, -2.0, 0.0), high=(1.0, 2.0, 3.0)
)
FORMAT = CONDITIONING.context_format(tuple(WEIGHTS))
CARD = PolicyCard(
    objectives=tuple(WEIGHTS),
    conditioning=CONDITIONING,
    control_strings=tuple(context_tokens(FORMAT)),
    max_model_len=64,
    revision="x",
)
conditioner = conditioner_of(CARD)


def test_a_chat_gives_the_template_weights() -> None:
    assert isinstance(conditioner, ScoresConditioner)
    assert conditioner.chat({}, WEIGHTS) == {"chat_template_kwargs": {"weights": WEIGHTS}}
    assert conditioner.default_template_kwargs(WEIGHTS) == {"weights": WEIGHTS}
    assert conditioner.about == {"applied": True}
    assert conditioner.kind == "scores"


def test_a_completion_ends_with_the_scores() -> None:
    edited = conditioner.completion({"prompt": "hello"}, WEIGHTS)
    assert edited == {"prompt": "hello <R1> 1.0 <R2> -2.0 <R3> 0.0"}


def engine(template: str) -> "type":
    """An engine whose prompts are whole tokens of the context and what is between them."""
    compiled = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(template)

    class Engine:
        async def __call__(self, text: str, kwargs: Mapping[str, object]) -> list[str]:
            rendered = compiled.render(messages=[{"role": "user", "content": text}], **kwargs)
            tokens, known = [], sorted(context_tokens(FORMAT), key=len, reverse=True)
            while rendered:
                found = next((token for token in known if rendered.startswith(token)), rendered[0])
                tokens.append(found)
                rendered = rendered[len(found) :]
            return tokens

    return Engine


def test_the_engine_is_asked_whether_its_template_writes_these_scores() -> None:
    asyncio.run(conditioner.self_test(engine(chat_template(FORMAT))(), model="ric"))
    other = FORMAT.model_copy(update={"mapping": "linf", "high": (0.5, 2.0, 3.0)})
    with pytest.raises(
        TemplateError, match=r"prints the control tokens .*'<R1> 0\.5'.*expected .*'<R1> 1\.0'"
    ):
        asyncio.run(conditioner.self_test(engine(chat_template(other))(), model="ric"))
