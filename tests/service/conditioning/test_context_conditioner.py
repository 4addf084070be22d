"""A policy of kind `context` finds the decided weights in its prompt."""

from fakes import policy_card
from preforch_models.context import ContextFormat
from preforch_service.conditioning import conditioner_of
from preforch_service.conditioning.context import expected_tokens

FORMAT = ContextFormat(objectives=("helpful", "harmless", "humor"))
WEIGHTS = {"helpful": 0.7, "harmless": 0.2, "humor": 0.1}
conditioner = conditioner_of(policy_card(FORMAT))


def test_a_chat_gets_the_weights_as_an_argument_of_the_template_besides_the_users() -> None:
    body = {"model": "tiny", "chat_template_kwargs": {"tone": "dry"}}
    edited = conditioner.chat(body, WEIGHTS)
    assert edited == {"model": "tiny", "chat_template_kwargs": {"tone": "dry", "weights": WEIGHTS}}
    assert body == {"model": "tiny", "chat_template_kwargs": {"tone": "dry"}}
    assert conditioner.chat({}, WEIGHTS) == {"chat_template_kwargs": {"weights": WEIGHTS}}


def test_a_completion_ends_with_the_context() -> None:
    edited = conditioner.completion({"prompt": "hello", "n": 2}, WEIGHTS)
    assert edited == {"prompt": "hello <W1> 0.70 <W2> 0.20 <W3> 0.10", "n": 2}


def test_an_engine_never_generates_without_weights() -> None:
    assert conditioner.default_template_kwargs(WEIGHTS) == {"weights": WEIGHTS}
    assert conditioner.about == {"applied": True}
    assert conditioner.notice is None


def test_levels_are_expected_as_one_token_each() -> None:
    context_format = ContextFormat(objectives=("b", "a"), encoding="levels")
    assert expected_tokens({"a": 0.3, "b": 0.7}, context_format) == ["<W1> 0.70", "<W2> 0.30"]
