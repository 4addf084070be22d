"""Every field of vLLM's request models is classified; a new version that brings another one fails here."""

import warnings

import pytest
from preforch_service import fields


@pytest.fixture(scope="module")
def engine_fields() -> dict[str, set[str]]:
    """Field names of vLLM's request models, by route."""
    with warnings.catch_warnings():
        # Importing vLLM imports parts of torch that warn about themselves.
        warnings.simplefilter("ignore")
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
        from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    return {"chat": set(ChatCompletionRequest.model_fields), "completion": set(CompletionRequest.model_fields)}


@pytest.mark.parametrize(
    ("route", "forwarded", "refused"),
    [
        ("chat", fields.CHAT_FORWARDED, fields.CHAT_REFUSED),
        ("completion", fields.COMPLETION_FORWARDED, fields.COMPLETION_REFUSED),
    ],
)
def test_every_field_is_either_forwarded_or_refused(
    engine_fields: dict[str, set[str]], route: str, forwarded: frozenset[str], refused: dict[str, str]
) -> None:
    known = engine_fields[route]
    assert known - forwarded - set(refused) == set(), "unclassified"
    assert (forwarded | set(refused)) - known == set(), "classified, but vLLM has no such field"
    assert forwarded & set(refused) == set()


def test_what_the_template_sees_is_forwarded_and_guarded() -> None:
    assert set(fields.TEMPLATE_SEES) <= fields.CHAT_FORWARDED
