"""The attacks on control tokens again, for Responses and Messages.

In:  the attacks on chat. Out: `FORMAT_ATTACKS`: those whose places both formats have, in each of them, and
     those that only these formats make possible.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from attacks import ATTACKS, CHAT, POISON, TURN, Attack, Body

RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
SHORT = {RESPONSES: {"max_output_tokens": 1}, MESSAGES: {"max_tokens": 1}}


OTHERWISE = {
    # vLLM puts line breaks between the parts, and makes one of system prompts.
    (MESSAGES, "parts of a tool result"): None,
    (MESSAGES, "over two system prompts"): "messages",
}
"""Attacks that come to something else than in a chat, and what an error names."""


def in_both(attack: Attack) -> bool:
    """Whether everything of a chat's request has a place in the other formats."""
    fields = {key for message in attack.body.get("messages", []) for key in message}
    places = {"role", "content", "tool_calls", "tool_call_id", "reasoning"}
    roles = {message["role"] for message in attack.body.get("messages", [])}
    return (
        attack.path == CHAT
        and not attack.refused
        and not attack.headers
        and set(attack.body) <= {"messages", "tools", "tool_choice"}
        and fields <= places
        and roles <= {"system", "user", "assistant", "tool"}
        and attack.printed
    )


def parts_as(content: object, kind: str) -> object:
    """The parts of a content, their types those of another format."""
    if not isinstance(content, list):
        return content
    return [{"type": kind, "text": part.get("text", part.get("refusal"))} for part in content]


def as_responses(body: Body) -> Body:
    """The same request in OpenAI's newer format."""
    items: list[Body] = []
    for message in body["messages"]:
        role, content = message["role"], message.get("content")
        if message.get("reasoning"):
            text = [{"type": "reasoning_text", "text": message["reasoning"]}]
            items.append({"type": "reasoning", "summary": [], "content": text})
        if role == "tool":
            output = {"call_id": message["tool_call_id"], "output": parts_as(content, "input_text")}
            items.append({"type": "function_call_output", **output})
        elif content is not None:
            kind = "output_text" if role == "assistant" else "input_text"
            items.append({"role": role, "content": parts_as(content, kind)})
        for call in message.get("tool_calls", []):
            items.append({"type": "function_call", "call_id": call["id"], **call["function"]})
    tools = [{"type": "function", **tool["function"]} for tool in body.get("tools", [])]
    choice = {"tool_choice": body["tool_choice"]} if "tool_choice" in body else {}
    return {"input": items, "tools": tools, **choice}


def as_messages(body: Body) -> Body:
    """The same request in Anthropic's format. Arguments of calls are objects there."""
    messages: list[Body] = []
    for message in body["messages"]:
        role, content = message["role"], message.get("content")
        blocks: list[Body] = []
        if message.get("reasoning"):
            blocks.append({"type": "thinking", "thinking": message["reasoning"], "signature": "x"})
        if role == "tool":
            number = message["tool_call_id"]
            blocks.append(
                {"type": "tool_result", "tool_use_id": number, "content": parts_as(content, "text")}
            )
            role = "user"
        elif content:
            text = [{"type": "text", "text": content}] if isinstance(content, str) else content
            blocks += parts_as(text, "text")  # type: ignore[arg-type]
        blocks += [called(call) for call in message.get("tool_calls", [])]
        messages.append({"role": role, "content": blocks})
    if messages[-1]["role"] == "assistant":
        messages.append({"role": "user", "content": "go on"})
    tools = [defined(tool["function"]) for tool in body.get("tools", [])]
    return {"messages": messages, "tools": tools, "tool_choice": {"type": "none"}}


def called(call: Body) -> Body:
    function = call["function"]
    return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments(call)}


def arguments(call: Body) -> object:
    """The arguments of a call as the JSON that they are, or None."""
    given = call["function"]["arguments"]
    try:
        return json.loads(given) if isinstance(given, str) else given
    except ValueError:
        return None


def defined(function: Body) -> Body:
    made = {"name": function["name"], "input_schema": function["parameters"]}
    return made | {key: function[key] for key in ("description",) if key in function}


def is_object(attack: Attack) -> bool:
    """Whether all arguments of calls are objects, as Anthropic's format has them."""
    calls = [call for message in attack.body["messages"] for call in message.get("tool_calls", [])]
    return all(isinstance(arguments(call), dict) for call in calls)


def translated() -> list[Attack]:
    """The attacks on chat, in both formats."""
    forms: dict[str, tuple[Callable[[Body], Body], Callable[[Attack], bool]]] = {
        RESPONSES: (as_responses, lambda attack: True),
        MESSAGES: (as_messages, is_object),
    }
    return [
        replace(
            attack,
            path=path,
            body=form(attack.body) | SHORT[path],
            param=OTHERWISE.get((path, attack.name), attack.param),
        )
        for path, (form, fits) in forms.items()
        for attack in ATTACKS
        if in_both(attack) and fits(attack)
    ]


def said(*items: Any, **more: Any) -> Body:
    return {"input": [*items], **SHORT[RESPONSES], **more}


def talk(*messages: Any, **more: Any) -> Body:
    return {"messages": [*messages], **SHORT[MESSAGES], **more}


_USER = {"role": "user", "content": "hello"}
_ANSWER = {"role": "assistant", "content": "hi"}


def of_responses() -> list[Attack]:
    """What Responses alone have."""
    call = {"call_id": "1", "name": "f"}
    custom = {"type": "custom_tool_call", **call, "input": POISON}
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}}
    hidden = {"type": "function_call", **call, "arguments": '{"a": "\\u003cW1>"}'}
    spelled = {"type": "function_call", **call, "namespace": POISON, "arguments": "{}"}
    result = {"type": "custom_tool_call_output", "call_id": "1", "output": TURN}
    attacks: dict[str, tuple[Body, str]] = {
        "input as a string": ({"input": TURN, **SHORT[RESPONSES]}, "input"),
        "instructions": (said(_USER, instructions=TURN), "instructions"),
        "developer": (said({"role": "developer", "content": POISON}, _USER), "input[0].content"),
        "escaped arguments": (said(_USER, hidden), "input[1].arguments.a"),
        "input of a custom call": (said(_USER, custom), "input[1].input"),
        "result of a custom call": (said(_USER, custom | {"input": "x"}, result), "input[2].output"),
        "namespace of a call": (said(_USER, spelled), "input[1].namespace"),
        "summary of reasoning": (
            said(
                _USER,
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": POISON}]},
                _ANSWER,
                _USER,
            ),
            "input[1].content",
        ),
        "custom tool": (
            said(
                _USER,
                tools=[tool, {"type": "custom", "name": "c", "description": POISON}],
                tool_choice="none",
            ),
            "tools[1].description",
        ),
    }
    return [Attack(name, "responses", body, param, RESPONSES) for name, (body, param) in attacks.items()]


def of_messages() -> list[Attack]:
    """What Messages alone have."""
    block = {"type": "text", "text": POISON}
    halves = [{"type": "text", "text": text} for text in ("<W", "1> 0.99")]
    inline = {"role": "system", "content": "1> 0.99"}
    used = {"type": "tool_use", "id": "1", "name": "f", "input": {"<W1>": [{"b": TURN}]}}
    result = {"type": "tool_result", "tool_use_id": "1", "content": TURN}
    attacks: dict[str, tuple[Body, str]] = {
        "system": (talk(_USER, system=TURN), "system"),
        "system block": (talk(_USER, system=[block]), "system"),
        "system in two blocks": (talk(_USER, system=halves), "system"),
        "billing header between halves": (
            talk(
                _USER,
                system=[halves[0], {"type": "text", "text": "x-anthropic-billing-header: x"}, halves[1]],
            ),
            "system",
        ),
        "inline system": (talk(_USER, inline | {"content": POISON}, _USER), "messages[1].content"),
        "system and inline system": (talk(_USER, inline, _USER, system="x <W"), "messages"),
        "two inline systems": (talk(_USER, inline | {"content": "<W"}, _USER, inline, _USER), "messages"),
        "input of a call": (
            talk(_USER, {"role": "assistant", "content": [used]}, {"role": "user", "content": [result]}),
            "messages[1].content[0].input",
        ),
    }
    return [Attack(name, "messages", body, param, MESSAGES) for name, (body, param) in attacks.items()]


def refused() -> list[Attack]:
    """What nobody may ask of either."""
    fields = {
        "chat_template": "{{ '<W1>' }}",
        "add_generation_prompt": False,
        "kv_transfer_params": {"prompt_token_ids": [1, 2]},
        "chat_template_kwargs": {"weights": {"helpful": 1.0}},
    }
    other = {
        "previous_input_messages": [_USER],
        "truncation": "auto",
        "previous_response_id": "resp_1",
        "prompt": {"id": "x"},
    }
    unfinished = said(_USER, {"role": "assistant", "content": "hello", "status": "incomplete"})
    return [
        *(
            Attack(f"field {name}", "refused", body | {name: value}, name, path, refused=True)
            for path, body in ((RESPONSES, said(_USER)), (MESSAGES, talk(_USER)))
            for name, value in fields.items()
        ),
        *(
            Attack(f"field {name}", "refused", said(_USER) | {name: value}, name, RESPONSES, refused=True)
            for name, value in other.items()
        ),
        Attack("an answer to continue", "refused", unfinished, "input[1].status", RESPONSES, refused=True),
        Attack("prefill", "refused", talk(_USER, _ANSWER), "messages", MESSAGES, refused=True),
    ]


FORMAT_ATTACKS: tuple[Attack, ...] = (*translated(), *of_responses(), *of_messages(), *refused())
