"""Every field of vLLM's request models is classified; a new version that brings another one fails here."""

import dataclasses
import typing
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import typing_extensions
from preforch_service.errors import BadRequest
from preforch_service.requests import fields
from pydantic import BaseModel


@pytest.fixture(scope="module")
def engine_models() -> dict[str, type[BaseModel]]:
    """vLLM's request models, by route."""
    with warnings.catch_warnings():
        # Importing vLLM imports parts of torch that warn about themselves.
        warnings.simplefilter("ignore")
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
        from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    return {"chat": ChatCompletionRequest, "completion": CompletionRequest}


def members(kind: Any) -> dict[str, Any]:
    """Types of the fields of a model, dataclass or typed dictionary, by the name that a client uses."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
    if dataclasses.is_dataclass(kind):
        return {field.name: field.type for field in dataclasses.fields(kind)}
    return typing_extensions.get_type_hints(kind) if typing_extensions.is_typeddict(kind) else {}


def nested(kind: Any, path: str) -> Iterator[tuple[str, set[str]]]:
    """Path and field names of every object with named fields in a type, itself included."""
    found = members(kind)
    if found:
        yield path, set(found)
        for name, inner in found.items():
            yield from nested(inner, f"{path}.{name}")
    for inner in typing.get_args(kind):
        yield from nested(inner, path)


@pytest.mark.parametrize(
    ("route", "forwarded", "refused"),
    [
        ("chat", fields.CHAT_FORWARDED, fields.CHAT_REFUSED),
        ("completion", fields.COMPLETION_FORWARDED, fields.COMPLETION_REFUSED),
    ],
)
def test_every_field_is_either_forwarded_or_refused(
    engine_models: dict[str, type[BaseModel]], route: str, forwarded: frozenset[str], refused: dict[str, str]
) -> None:
    known = set(engine_models[route].model_fields)
    assert known - forwarded - set(refused) == set(), "unclassified"
    assert (forwarded | set(refused)) - known == set(), "classified, but vLLM has no such field"
    assert forwarded & set(refused) == set()


def test_what_the_template_sees_is_forwarded_and_guarded() -> None:
    assert set(fields.TEMPLATE_SEES) <= fields.CHAT_FORWARDED
    assert set(fields.CONSTRAINTS) <= fields.CHAT_FORWARDED & fields.COMPLETION_FORWARDED


@pytest.mark.parametrize("route", ["chat", "completion"])
def test_every_field_of_the_objects_inside_a_request_is_classified(
    engine_models: dict[str, type[BaseModel]], route: str
) -> None:
    known: dict[str, set[str]] = {}
    for name, kind in members(engine_models[route]).items():
        if name not in fields.CHAT_FORWARDED | fields.COMPLETION_FORWARDED or name == "messages":
            continue
        for path, names in nested(kind, name):
            known[path] = known.get(path, set()) | names
    assert known, "no nested object was found: this test is blind"
    classified = {
        path: fields.NESTED.get(path, frozenset()) | fields.NESTED_REFUSED.get(path, set()) for path in known
    }
    assert classified == known
    if route == "chat":
        assert set(fields.NESTED) | set(fields.NESTED_REFUSED) == set(known)


def test_every_field_of_a_message_is_classified(engine_models: dict[str, type[BaseModel]]) -> None:
    kinds = nested(engine_models["chat"].model_fields["messages"].annotation, "messages")
    harmony = {"author", "channel", "recipient", "content_type"}  # a format of its own, refused as unknown
    known = set().union(*(names for path, names in kinds if path == "messages")) - harmony
    ours = {"reasoning_content"}  # the older name of `reasoning`
    assert known - {"refusal"} == (fields.MESSAGE_FIELDS | set(fields.MESSAGE_REFUSED)) - ours - {"refusal"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"stream_options": {"include_usage": True, "x": 1}}, "stream_options.x"),
        ({"tools": [{"type": "function"}, {"type": "function", "cache": 1}]}, "tools[1].cache"),
        ({"tools": [{"function": {"name": "f", "x": 1}}]}, "tools[0].function.x"),
        ({"structured_outputs": {"_backend": "x"}}, "structured_outputs._backend"),
        ({"structured_outputs": {"grammar": 'start: "a" <[7]>'}}, "structured_outputs.grammar"),
        ({"structured_outputs": {"regex": "[<]W1>"}}, "structured_outputs.regex"),
        ({"structured_outputs": {"structural_tag": "{}"}}, "structured_outputs.structural_tag"),
        ({"response_format": {"type": "structural_tag", "format": {}}}, "response_format.format"),
        (
            {"response_format": {"json_schema": {"json_schema": {}}}},
            "response_format.json_schema.json_schema",
        ),
    ],
)
def test_an_unlisted_field_of_an_object_inside_is_refused(body: dict[str, object], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check(body)
    assert (refused.value.param, refused.value.code) == (param, "field_not_allowed")


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"7": 0.5}, "logit_bias.7"),
        ({"7": True}, "logit_bias.7"),
        ({"7": "100"}, "logit_bias.7"),
        ({"7": None}, "logit_bias.7"),
        ({str(token): -1 for token in range(fields.MAX_BIASES + 1)}, "logit_bias"),
        ([5], "logit_bias"),
    ],
)
def test_a_bias_cannot_force_a_token_or_overwhelm_the_engine(given: object, param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check({"logit_bias": given})
    assert refused.value.param == param


def test_a_bias_may_keep_tokens_away() -> None:
    check({"logit_bias": {str(token): -100 for token in range(fields.MAX_BIASES)} | {"7": 0, "8": -0.5}})
    check({"logit_bias": None})


def check(body: Mapping[str, object]) -> None:
    fields.check_fields(body, forwarded=fields.CHAT_FORWARDED, refused=fields.CHAT_REFUSED)


def test_schemas_inside_are_free() -> None:
    schema = {"type": "object", "anything": {"x": [1]}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    answer = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    body = {"tools": [tool], "response_format": answer, "tool_choice": "auto", "stream_options": None}
    check(body)
