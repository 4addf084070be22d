"""Responses and Messages: every field has a class, and the engine gets of a conversation what was read."""

import json
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
import typing_extensions
from conversations import CLAUDE_CODE, CODEX, OPENCODE, Body
from poison import POISON, STRINGS, clean
from preforch_models.control_strings import ControlStrings
from preforch_service.errors import BadRequest
from preforch_service.requests.anthropic import fields as anthropic
from preforch_service.requests.anthropic.request import COUNT_TOKENS, MESSAGES
from preforch_service.requests.control_strings import ControlGuard
from preforch_service.requests.fields import CHAT_REFUSED
from preforch_service.requests.formats import Reading, RequestFormat
from preforch_service.requests.ignored import IGNORED, IGNORED_HEADER, Ignored, UnknownFields
from preforch_service.requests.responses import fields as responses
from preforch_service.requests.responses.request import RESPONSES
from preforch_service.settings import ControlMode
from preforch_service.telemetry.metrics import Metrics
from pydantic import BaseModel


def guard(mode: ControlMode = "escape", strings: ControlStrings = STRINGS) -> ControlGuard:
    return ControlGuard(strings, mode=mode, metrics=Metrics())


class Read(NamedTuple):
    turns: list[dict[str, Any]]
    fields: dict[str, Any]
    dropped: set[str]


def read(
    form: RequestFormat,
    body: Mapping[str, Any],
    given: ControlGuard | None = None,
    mode: UnknownFields = "ignore",
) -> Read:
    reading = Reading(given or guard(), Ignored(mode))
    fields = form.read(form.select(body, reading.ignored), reading)
    named = reading.ignored.headers().get(IGNORED_HEADER)
    return Read(reading.turns, fields, set(named.split(", ") if named else ()))


def engine_models() -> dict[str, type[BaseModel]]:
    with warnings.catch_warnings():
        # Importing vLLM imports parts of torch that warn about themselves.
        warnings.simplefilter("ignore")
        from vllm.entrypoints.anthropic.protocol import AnthropicCountTokensRequest, AnthropicMessagesRequest
        from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
    return {
        "responses": ResponsesRequest,
        "messages": AnthropicMessagesRequest,
        "count": AnthropicCountTokensRequest,
    }


def client_fields() -> dict[str, set[str]]:
    """The fields that the clients know."""
    from anthropic.types import beta, message_count_tokens_params, message_create_params
    from openai.types.responses import response_create_params

    messages = (
        message_create_params.MessageCreateParamsNonStreaming,
        beta.message_create_params.MessageCreateParamsNonStreaming,
    )
    counted = (
        message_count_tokens_params.MessageCountTokensParams,
        beta.message_count_tokens_params.MessageCountTokensParams,
    )

    def names(*params: Any) -> set[str]:
        return {name for param in params for name in typing_extensions.get_type_hints(param)}

    return {
        "responses": names(response_create_params.ResponseCreateParamsNonStreaming),
        "messages": names(*messages),
        "count": names(*counted),
    }


@pytest.mark.parametrize(
    ("route", "form"), [("responses", RESPONSES), ("messages", MESSAGES), ("count", COUNT_TOKENS)]
)
def test_every_field_has_one_class(route: str, form: RequestFormat) -> None:
    known = set(engine_models()[route].model_fields)
    classified = form.forwarded | set(form.refused) | IGNORED
    # All of it that the client knows is `include_obfuscation`; a chat forwards another one of that name.
    of_another_kind = {"stream_options"}
    unclassified = (known | client_fields()[route]) - classified - of_another_kind
    assert unclassified == set(), "it would be dropped as unknown"
    assert form.forwarded - known == set(), "forwarded, but vLLM has no such field"
    assert form.forwarded & (set(form.refused) | IGNORED) == set(), "a field has two classes"
    assert set(form.refused) & IGNORED <= set(form.changes_nothing)
    assert set(form.changes_nothing) - {"best_of"} <= set(form.refused)
    assert set(form.guarded) <= form.forwarded


def test_every_kind_of_item_tool_and_block_of_the_clients_has_a_class() -> None:
    from anthropic.types import ContentBlockParam
    from openai.types.responses import response_input_item_param, tool_param

    def types(union: Any) -> set[str]:
        hints = [
            typing_extensions.get_type_hints(kind).get("type") for kind in typing_extensions.get_args(union)
        ]
        return {str(value) for hint in hints for value in literals(hint)}

    def literals(hint: Any) -> set[str]:
        inner = typing_extensions.get_args(hint)
        return {v for part in inner for v in ({part} if isinstance(part, str) else literals(part))}

    items = types(response_input_item_param.ResponseInputItemParam)
    assert {"message", "function_call", "reasoning"} <= items
    served = {"message", "reasoning", "function_call", "function_call_output"} | {
        "custom_tool_call",
        "custom_tool_call_output",
    }
    assert items - served - set(responses.ITEMS_REFUSED) == set()
    tools = types(tool_param.ToolParam)
    assert {"function", "custom", "mcp"} <= tools
    assert tools - set(responses.TOOLS) - set(responses.TOOLS_REFUSED) == set()
    blocks = types(ContentBlockParam)
    assert {"text", "image"} <= blocks
    assert (
        blocks
        - {kind for kinds in anthropic.BLOCKS.values() for kind in kinds}
        - set(anthropic.BLOCKS_REFUSED)
        == set()
    )


def test_a_conversation_of_responses_is_read_as_its_chat() -> None:
    found = read(RESPONSES, CODEX)
    assert [(turn["role"], turn["content"]) for turn in found.turns] == [
        ("system", "You are a coding agent. Answer in short sentences."),
        ("developer", "<permissions>read only</permissions>"),
        ("user", "<environment_context>\n  <cwd>/w</cwd>\n</environment_context>"),
        ("user", "why does it fail?"),
        ("assistant", None),
        ("tool", "disk full"),
        ("assistant", None),
        ("tool", "done"),
        ("assistant", "The disk is full."),
        ("user", "free some space"),
    ]
    sent = found.fields
    assert [item["type"] for item in sent["input"]] == [item["type"] for item in CODEX["input"]]
    assert all(set(item) & {"id", "status", "phase", "encrypted_content"} == set() for item in sent["input"])
    assert sent["input"][3]["content"] == [{"type": "reasoning_text", "text": "Look at the log first."}]
    assert sent["reasoning"] == {"effort": "medium"}
    assert set(sent) & {"store", "include", "text", "prompt_cache_key", "client_metadata"} == set()
    assert found.dropped == {
        *("client_metadata", "store", "prompt_cache_key", "text.verbosity", "reasoning.summary"),
        *("include.reasoning_encrypted_content", "input.phase"),
    }
    assert read(RESPONSES, OPENCODE).turns[-1] == {"role": "user", "content": "and what is in it?"}


def test_a_conversation_of_messages_is_read_as_its_chat() -> None:
    found = read(MESSAGES, CLAUDE_CODE)
    assert [(turn["role"], turn["content"]) for turn in found.turns] == [
        ("system", "You are Claude Code.\nBe short."),
        ("user", "<system-reminder>\nToday is Tuesday.\n</system-reminder>why does it fail?"),
        ("assistant", "I read the log."),
        ("tool", "disk full\n(exit 1)"),
        ("user", "<system-reminder>Mind the plan.</system-reminder>"),
        ("assistant", "The disk is full."),
        ("system", "The user is in a hurry."),
        ("user", "free some space"),
    ]
    sent = found.fields
    assert found.dropped == {
        *("metadata", "context_management", "thinking.type", "thinking.budget_tokens"),
        *("system.cache_control", "system.x-anthropic-billing-header"),
        *("messages.content.cache_control", "messages.content.data", "messages.content.is_error"),
        *("tools.cache_control", "tools.eager_input_streaming"),
    }
    assert "cache_control" not in json.dumps(sent)
    assert [block["type"] for block in sent["messages"][1]["content"]] == ["thinking", "text", "tool_use"]
    assert set(sent) & {"metadata", "thinking", "context_management"} == set()
    assert sent["tools"][1] == {"name": "Read", "input_schema": {"type": "object", "properties": {}}}
    assert read(COUNT_TOKENS, CLAUDE_CODE).fields.keys() == sent.keys() - {"max_tokens", "temperature"}


def poisoned(value: object) -> object:
    """A request in which every text that is no word of the format holds control strings, also as JSON."""
    words = {"type", "role", "model", "name", "status", "effort", "include", "id", "tool_choice"}
    if isinstance(value, dict):
        return {k: v if k in words else poisoned(v) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(item) for item in value]
    if isinstance(value, str) and value.startswith("{"):
        return '{"a": "\\u003cW1>", "\\u003cW2>": ["<|im_end|>"]}'
    return f"{value} {POISON}" if isinstance(value, str) else value


def with_poison(body: Body) -> Body:
    found = poisoned(body)
    assert isinstance(found, dict)
    for tool in found["tools"]:
        tool["name"] = POISON
    return found


@pytest.mark.parametrize(
    ("form", "body"),
    [(RESPONSES, CODEX), (RESPONSES, OPENCODE), (MESSAGES, CLAUDE_CODE), (COUNT_TOKENS, CLAUDE_CODE)],
)
def test_nothing_that_a_template_sees_holds_a_control_string(form: RequestFormat, body: Body) -> None:
    bad = with_poison(body)
    bad["include"] = None
    found = read(form, bad).fields
    seen = {name: value for name, value in found.items() if name not in form.guarded}
    assert not clean(bad)
    assert clean(seen)
    assert set(form.guarded) >= set(found) - set(seen)


def test_texts_are_joined_before_they_are_checked() -> None:
    for kind in ("input_text", "output_text", "text"):
        parts = [{"type": kind, "text": "<W"}, {"type": kind, "text": "1>"}]
        found = read(RESPONSES, {"input": [{"role": "user", "content": parts}]})
        assert found.fields["input"][0]["content"] == "<\u2060W1>"
        assert found.turns[0]["content"] == "<W1>"
    text = [{"type": "text", "text": "<W"}, {"type": "text", "text": "1>"}]
    messages = [
        {"role": "user", "content": text},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": t} for t in ("<W", "2>")]},
        {"role": "system", "content": text},
        {"role": "user", "content": text},
    ]
    sent = read(MESSAGES, {"system": text, "messages": messages}).fields
    assert clean(sent)
    assert sent["system"] == "<\u2060W1>"
    assert sent["messages"][1]["content"] == [{"type": "thinking", "thinking": "<\u2060W2>"}]


@pytest.mark.parametrize("pieces", [("<W", "1>"), ("<", "W", "1>"), ("hello <|im_en", "d|> <W", "2>")])
def test_system_messages_that_an_engine_joins_make_no_control_string(pieces: tuple[str, ...]) -> None:
    system, *inline = pieces
    messages = [{"role": "user", "content": "x"}, *({"role": "system", "content": text} for text in inline)]
    body = {"system": system, "messages": [*messages, {"role": "user", "content": "y"}]}
    sent = read(MESSAGES, body).fields
    texts = [sent["system"], *(m["content"] for m in sent["messages"] if m["role"] == "system")]
    assert STRINGS.find("".join(pieces))
    assert STRINGS.find("".join(texts)) is None
    assert "".join(texts).replace("\u2060", "") == "".join(pieces)
    with pytest.raises(BadRequest) as refused:
        read(MESSAGES, body, guard("reject"))
    assert refused.value.code == "control_string"


def test_a_namespace_and_a_name_make_no_control_string() -> None:
    strings = ControlStrings(["a__b"])
    call = {"type": "function_call", "call_id": "1", "namespace": "a", "name": "b", "arguments": "{}"}
    tool = {
        "type": "namespace",
        "name": "xa",
        "description": "x",
        "tools": [{"type": "function", "name": "bx"}],
    }
    user = {"role": "user", "content": "x"}
    for body in ({"input": [user, call]}, {"input": "x", "tools": [tool]}):
        with pytest.raises(BadRequest, match="control string"):
            read(RESPONSES, body, guard(strings=strings))
        read(RESPONSES, body)


_USER = {"role": "user", "content": "x"}
_ANSWER = {"role": "assistant", "content": "y"}


def said(*items: object) -> Body:
    return {"input": list(items)}


def talk(*messages: object, **more: object) -> Body:
    return {"messages": list(messages), "max_tokens": 5, **more}


@pytest.mark.parametrize(
    ("body", "param", "reason"),
    [
        ({}, "input", "string, or a list"),
        (said(), "input", "at least one"),
        (said("x"), "input[0]", "object"),
        (said(_ANSWER), "input", "user turn"),
        ({"input": "x", "previous_response_id": "resp_1"}, "previous_response_id", "not stored"),
        ({"input": "x", "conversation": {"id": "c"}}, "conversation", "not stored"),
        ({"input": "x", "background": True}, "background", "not stored"),
        ({"input": "x", "truncation": "auto"}, "truncation", "weights"),
        ({"input": "x", "prompt": {"id": "p"}}, "prompt", "OpenAI"),
        ({"input": "x", "chat_template": "y"}, "chat_template", "weights"),
        ({"input": "x", "previous_input_messages": []}, "previous_input_messages", "weights"),
        ({"input": "x", "instructions": ["y"]}, "instructions", "string"),
        ({"input": "x", "preferenceWeights": {"helpful": 1}}, "preferenceWeights", "preference_weights"),
        ({"input": "x", "response_format": {"type": "text"}}, "response_format", "chat/completions"),
        ({"input": "x", "guided_json": {}}, "guided_json", "structured_outputs"),
        ({"input": "x", "structured_outputs": {"regex": "a"}}, "structured_outputs.regex", "allowed"),
        ({"input": "x", "text": {"format": {"type": "grammar"}}}, "text.format.type", "served are"),
        ({"input": "x", "text": {"format": {"type": "json_object", "a": 1}}}, "text.format.a", "allowed"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0].type", "servers of OpenAI"),
        ({"input": "x", "tools": [{"type": "function"}]}, "tools[0].name", "string"),
        (
            {"input": "x", "tools": [{"type": "custom", "name": "f", "format": {"type": "grammar"}}]},
            "tools[0].format.type",
            "force control tokens",
        ),
        ({"input": "x", "tool_choice": {"type": "allowed_tools"}}, "tool_choice.type", "served are"),
        (said(_USER, {"type": "item_reference", "id": "x"}), "input[1].type", "not stored"),
        (said(_USER, {"type": "web_search_call"}), "input[1].type", "servers of OpenAI"),
        (said({"role": "tool", "content": "x"}), "input[0].role", "allowed are"),
        (said({"role": "user", "content": None}), "input[0].content", "string or a list"),
        (
            said({"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}),
            "input[0].content[0].type",
            "only text",
        ),
        (said(_USER, _ANSWER | {"status": "incomplete"}), "input[1].status", "not continued"),
        (said(_USER, {"type": "function_call", "name": "f"}), "input[1].arguments", "string"),
        (said(_USER, {"type": "function_call_output", "output": "x"}), "input[1].call_id", "string"),
    ],
)
def test_what_responses_cannot_serve_is_refused_in_words(body: Body, param: str, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason) as refused:
        read(RESPONSES, body)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("body", "param", "reason"),
    [
        ({}, "messages", "at least one"),
        (talk({"role": "system", "content": "x"}), "messages", "user turn"),
        (talk({"role": "user", "content": []}), "messages", "user turn"),
        (talk({"role": "tool", "content": "x"}), "messages[0].role", "allowed are"),
        (talk(_USER, _ANSWER), "messages", "prefill"),
        (talk(_USER, thread="t"), "thread", "not stored"),
        (talk(_USER, instructions="y"), "instructions", "system and messages"),
        (talk(_USER, weights={"helpful": 1}), "weights", "preference_weights"),
        (talk(_USER, stop=["x"]), "stop", "chat/completions"),
        (talk(_USER, mcp_servers=[{"url": "x"}]), "mcp_servers", "servers of Anthropic"),
        (talk(_USER, kv_transfer_params={}), "kv_transfer_params", "weights"),
        (talk(_USER, output_format={}), "output_format", "output_config"),
        (talk(_USER, output_config={"a": 1}), "output_config.a", "allowed"),
        (talk(_USER, system=[{"type": "image"}]), "system[0].type", "only text"),
        (talk(_USER, tools=[{"type": "web_search_20250305", "name": "w"}]), "tools[0].type", "Anthropic's"),
        (talk(_USER, tools=[{"name": "f"}]), "tools[0].input_schema", "object"),
        (
            talk({"role": "user", "content": [{"type": "document"}]}),
            "messages[0].content[0].type",
            "only text",
        ),
        (
            talk({"role": "user", "content": [{"type": "thinking", "thinking": "x"}]}),
            "messages[0].content[0].type",
            "assistant's message",
        ),
        (
            talk({"role": "user", "content": [{"type": "tool_result", "content": [{"type": "image"}]}]}),
            "messages[0].content[0].content[0].type",
            "only text",
        ),
        (
            talk(
                _USER, {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f"}]}, _USER
            ),
            "messages[1].content[0].input",
            "object",
        ),
    ],
)
def test_what_messages_cannot_serve_is_refused_in_words(body: Body, param: str, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason) as refused:
        read(MESSAGES, body)
    assert refused.value.param == param


def test_what_says_that_nothing_happens_is_served() -> None:
    absent = dict.fromkeys((*RESPONSES.refused, *RESPONSES.forwarded))
    harmless: Body = {"input": "x", "background": False, "truncation": "disabled", "tools": [], "text": {}}
    assert read(RESPONSES, absent | harmless | {"store": True}).fields == {"input": "x"}
    assert read(MESSAGES, talk(_USER, mcp_servers=[], container=None)).fields == talk(_USER)
    assert set(CHAT_REFUSED) <= set(RESPONSES.refused) & set(MESSAGES.refused)
    assert read(COUNT_TOKENS, talk(_USER, _ANSWER)).fields == {"messages": [_USER, _ANSWER]}


NOBODY = {"nobody": "<W1>"}
EVERYWHERE: list[tuple[RequestFormat, Body, str, str]] = [
    (RESPONSES, said(_USER | NOBODY), "input[0].nobody", "input.nobody"),
    (
        RESPONSES,
        said(_USER | {"content": [{"type": "input_text", "text": "x"} | NOBODY]}),
        "input[0].content[0].nobody",
        "input.content.nobody",
    ),
    (
        RESPONSES,
        said(_USER, {"type": "reasoning", "content": [{"type": "text", "text": "x"} | NOBODY]}, _USER),
        "input[1].content[0].nobody",
        "input.content.nobody",
    ),
    (
        RESPONSES,
        said(
            _USER,
            {
                "type": "function_call_output",
                "call_id": "1",
                "output": [{"type": "text", "text": "x"} | NOBODY],
            },
        ),
        "input[1].output[0].nobody",
        "input.output.nobody",
    ),
    (RESPONSES, {"input": "x", **NOBODY}, "nobody", "nobody"),
    (RESPONSES, {"input": "x", "truncation": "disabled"}, "truncation", "truncation"),
    (RESPONSES, {"input": "x", "stream_options": {}}, "stream_options", "stream_options"),
    (
        RESPONSES,
        {"input": "x", "tools": [{"type": "function", "name": "f"} | NOBODY]},
        "tools[0].nobody",
        "tools.nobody",
    ),
    (
        RESPONSES,
        {
            "input": "x",
            "tools": [
                {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f"} | NOBODY]}
            ],
        },
        "tools[0].tools[0].nobody",
        "tools.tools.nobody",
    ),
    (RESPONSES, {"input": "x", "include": ["x.y"]}, "include[0]", "include.x_y"),
    (RESPONSES, {"input": "x", "reasoning": {"summary": "auto"}}, "reasoning.summary", "reasoning.summary"),
    (MESSAGES, talk(_USER | NOBODY), "messages[0].nobody", "messages.nobody"),
    (
        MESSAGES,
        talk({"role": "user", "content": [{"type": "text", "text": "x"} | NOBODY]}),
        "messages[0].content[0].nobody",
        "messages.content.nobody",
    ),
    (
        MESSAGES,
        talk(
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "x"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "1",
                        "content": [{"type": "text", "text": "x"} | NOBODY],
                    },
                ],
            }
        ),
        "messages[0].content[1].content[0].nobody",
        "messages.content.content.nobody",
    ),
    (
        MESSAGES,
        talk(_USER, system=[{"type": "text", "text": "x"} | NOBODY]),
        "system[0].nobody",
        "system.nobody",
    ),
    (MESSAGES, talk(_USER, thinking={"type": "adaptive"}), "thinking.type", "thinking.type"),
    (
        MESSAGES,
        talk(_USER, tools=[{"name": "f", "input_schema": {}} | NOBODY]),
        "tools[0].nobody",
        "tools.nobody",
    ),
    (COUNT_TOKENS, talk(_USER), "max_tokens", "max_tokens"),
]
"""A field that nobody reads, at every place that has any; what errors call it, and the header."""


@pytest.mark.parametrize(("form", "body", "param", "name"), EVERYWHERE)
def test_what_nobody_reads_is_dropped_and_named_or_refused_as_the_operator_wants(
    form: RequestFormat, body: Body, param: str, name: str
) -> None:
    found = read(form, body)
    assert found.dropped == {name}
    assert "nobody" not in json.dumps(found.fields)
    with pytest.raises(BadRequest) as refused:
        read(form, body, mode="reject")
    assert (refused.value.param, refused.value.code) == (param, "field_not_allowed")


def test_answers_that_are_sent_back_drop_nothing() -> None:
    text: Body = {"type": "output_text", "text": "y", "annotations": [], "logprobs": None}
    call = {
        "type": "function_call",
        "call_id": "1",
        "name": "f",
        "arguments": "{}",
        "id": "fc",
        "status": "x",
    }
    answer = {"type": "message", "id": "m", "status": "completed", "role": "assistant", "content": [text]}
    reasoning: Body = {
        "type": "reasoning",
        "id": "r",
        "summary": [],
        "encrypted_content": None,
        "status": None,
    }
    assert read(RESPONSES, said(_USER, reasoning, call, answer, _USER), mode="reject").dropped == set()
    blocks = [
        {"type": "thinking", "thinking": "x", "signature": "s"},
        {"type": "text", "text": "y", "citations": None},
        {"type": "tool_use", "id": "1", "name": "f", "input": {}},
    ]
    body = talk(_USER, {"role": "assistant", "content": blocks}, _USER)
    assert read(MESSAGES, body, mode="reject").dropped == set()
