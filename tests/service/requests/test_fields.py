"""Every field of vLLM's request models is classified; a new version that brings another one fails here."""

import dataclasses
import json
import typing
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import pytest
import typing_extensions
from openai.types import chat, completion_create_params
from preforch_service.errors import BadRequest
from preforch_service.requests import fields
from preforch_service.requests.ignored import IGNORED, IGNORED_HEADER, Ignored, UnknownFields
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


ROUTES = [
    ("chat", fields.CHAT_FORWARDED, fields.CHAT_REFUSED, fields.CHAT_NOT_SERVED),
    ("completion", fields.COMPLETION_FORWARDED, fields.COMPLETION_REFUSED, fields.COMPLETION_NOT_SERVED),
]
# With a class of their own: `legacy_functions` makes tools of them.
TRANSLATED = {"chat": {"functions", "function_call"}, "completion": set[str]()}


@pytest.mark.parametrize(("route", "forwarded", "refused", "elsewhere"), ROUTES)
def test_every_field_of_the_engine_is_of_one_class(
    engine_models: dict[str, type[BaseModel]],
    route: str,
    forwarded: frozenset[str],
    refused: Mapping[str, str],
    elsewhere: Mapping[str, str],
) -> None:
    known = set(engine_models[route].model_fields)
    assert known - forwarded - set(refused) - IGNORED == set(), "unclassified: it would be dropped as unknown"
    assert (forwarded | set(refused)) - known == set(), "classified, but vLLM has no such field"
    assert known & set(elsewhere) == set(), "vLLM has it: it belongs among those that are refused"
    assert forwarded & set(refused) == (forwarded | set(refused)) & IGNORED == set()


@pytest.mark.parametrize(("route", "forwarded", "refused", "elsewhere"), ROUTES)
def test_every_field_of_openai_is_of_one_class(
    route: str, forwarded: frozenset[str], refused: Mapping[str, str], elsewhere: Mapping[str, str]
) -> None:
    models = {"chat": chat.completion_create_params, "completion": completion_create_params}
    known = set(typing.get_type_hints(models[route].CompletionCreateParamsNonStreaming))
    classified = forwarded | set(refused) | set(elsewhere) | IGNORED | TRANSLATED[route]
    assert known - classified == set(), "unclassified: it would be dropped as unknown"
    assert forwarded & (set(elsewhere) | TRANSLATED[route]) == set()
    # A known one that is in both classes is dropped with one value, and refused with any other.
    assert set(elsewhere) & IGNORED <= set(fields.CHANGES_NOTHING)


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
    harmony = {"author", "channel", "recipient", "content_type"}  # a format of its own, dropped as unknown
    known = set().union(*(names for path, names in kinds if path == "messages")) - harmony
    ours = {"reasoning_content", "refusal"}  # the older name of `reasoning`; in OpenAI's models alone
    translated = {"function_call"}
    assert known - {"refusal"} - translated - set(fields.MESSAGE_REFUSED) == fields.MESSAGE_FIELDS - ours


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"structured_outputs": {"_backend": "x"}}, "structured_outputs._backend"),
        ({"structured_outputs": {"grammar": 'start: "a" <[7]>'}}, "structured_outputs.grammar"),
        ({"structured_outputs": {"regex": "[<]W1>"}}, "structured_outputs.regex"),
        ({"structured_outputs": {"structural_tag": "{}"}}, "structured_outputs.structural_tag"),
        ({"response_format": {"type": "structural_tag", "format": {}}}, "response_format.format"),
        (
            {"response_format": {"json_schema": {"json_schema": {}}}},
            "response_format.json_schema.json_schema",
        ),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, "tool_choice.allowed_tools"),
    ],
)
def test_an_unlisted_field_of_a_constraint_is_refused(body: dict[str, object], param: str) -> None:
    for mode in get_args(UnknownFields):
        with pytest.raises(BadRequest) as refused:
            check(body, mode)
        assert (refused.value.param, refused.value.code) == (param, "field_not_allowed")


@pytest.mark.parametrize(
    ("body", "param", "dropped"),
    [
        ({"stream_options": {"include_usage": True, "x": 1}}, "stream_options.x", "stream_options.x"),
        (
            {"tools": [{"type": "function"}, {"type": "function", "cache": 1}]},
            "tools[1].cache",
            "tools.cache",
        ),
        ({"tools": [{"function": {"name": "f", "x": 1}}]}, "tools[0].function.x", "tools.function.x"),
        ({"store": True}, "store", "store"),
        ({"modalities": ["text"]}, "modalities", "modalities"),
        ({"nobody knows": {"a": 1}}, "nobody knows", "nobody_knows"),
        ({"audio": None}, "audio", "audio"),
    ],
)
def test_what_changes_nothing_is_dropped_or_refused_as_the_operator_wants(
    body: dict[str, object], param: str, dropped: str
) -> None:
    ignored = Ignored("ignore")
    kept = check(body, "ignore", ignored)
    assert ignored.headers() == {IGNORED_HEADER: dropped}
    assert param.rpartition(".")[2] not in json.dumps(kept)
    with pytest.raises(BadRequest) as refused:
        check(body, "reject")
    assert (refused.value.param, refused.value.code) == (param, "field_not_allowed")


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("modalities", ["text", "audio"], "no images, audio"),
        ("audio", {"voice": "alloy"}, "no images, audio"),
        ("web_search_options", {}, "web search is not served"),
        ("guided_json", {}, "structured_outputs"),
        ("prompt_token_ids", [1], "bypasses the prompt"),
        ("prompt", "x", "/v1/completions"),
        ("extra_body", {"preference_weights": {}}, "in the body itself"),
        ("preferenceWeights", {"helpful": 1}, "'preference_weights'"),
        ("preference_weigths", {"helpful": 1}, "'preference_weights'"),
        ("weights", {"helpful": 1}, "'preference_weights'"),
        ("x-preference", "y", "'preference_weights'"),
    ],
)
def test_what_would_change_prompt_or_answer_is_refused_in_words(
    field: str, value: object, reason: str
) -> None:
    with pytest.raises(BadRequest, match=reason) as refused:
        check({field: value}, "ignore")
    assert (refused.value.param, refused.value.code) == (field, "field_not_allowed")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("web_search_preview", "web search is not served"), ("custom", "served is 'function'")],
)
def test_tools_that_are_no_functions_are_refused_in_words(kind: str, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason) as refused:
        check({"tools": [{"type": "function"}, {"type": kind}]}, "ignore")
    assert refused.value.param == "tools[1].type"


def test_a_completion_has_no_fields_of_a_chat() -> None:
    refused = {**fields.COMPLETION_REFUSED, **fields.COMPLETION_NOT_SERVED}

    def drop(body: dict[str, object]) -> dict[str, str]:
        ignored = Ignored("ignore")
        fields.check_fields(body, forwarded=fields.COMPLETION_FORWARDED, refused=refused, ignored=ignored)
        return ignored.headers()

    assert drop({"best_of": 1}) == {IGNORED_HEADER: "best_of"}
    for field, value in {"best_of": 2, "max_completion_tokens": 5, "tools": [], "functions": []}.items():
        with pytest.raises(BadRequest) as caught:
            drop({field: value})
        assert caught.value.param == field


def check(
    body: Mapping[str, object], mode: UnknownFields, ignored: Ignored | None = None
) -> Mapping[str, object]:
    refused = {**fields.CHAT_REFUSED, **fields.CHAT_NOT_SERVED}
    return fields.check_fields(
        body, forwarded=fields.CHAT_FORWARDED, refused=refused, ignored=ignored or Ignored(mode)
    )


def test_schemas_inside_are_free() -> None:
    schema = {"type": "object", "anything": {"x": [1]}, "cache_control": {"type": "string"}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    answer = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    body = {"tools": [tool], "response_format": answer, "tool_choice": "auto", "stream_options": None}
    assert check(body, "reject") == body
