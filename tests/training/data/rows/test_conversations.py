"""Values of columns as conversations: every form that real data come in, and what is refused and why."""

from typing import Any

import pytest
from conversation_rows import CHATML, as_chatml, openai, read, turns
from preforch_training.data.config import Source, Transcript
from preforch_training.data.rows.conversations import prompt_of
from preforch_training.data.rows.messages import is_visible
from preforch_training.data.rows.pairs import read_pairs
from preforch_training.data.rows.record import BadRow, open_row, value_at

# Forms of a prompt.


def test_hh_text_becomes_turns() -> None:
    text = "\n\nHuman: Hi: there\n\nmore\n\nAssistant: Hello\n\nHuman: Joke?\n\nAssistant:"
    expected = turns(("user", "Hi: there\n\nmore"), ("assistant", "Hello"), ("user", "Joke?"))
    assert prompt_of(text, column="p") == expected
    assert prompt_of(text.lstrip(), column="p") == expected


def test_hh_text_without_the_last_assistant_mark_keeps_every_turn() -> None:
    assert prompt_of("\n\nHuman: Hi", column="p") == turns(("user", "Hi"))


def test_a_list_of_messages_is_taken_as_it_is() -> None:
    given = (("system", "s"), ("user", "u"))
    assert prompt_of(openai(*given), column="p") == turns(*given)


@pytest.mark.parametrize(
    ("role", "expected"),
    [("prompter", "user"), ("human", "user"), ("Human", "user"), ("user", "user")],
)
def test_roles_get_the_names_of_openai(role: str, expected: str) -> None:
    given = openai((role, "u"), ("gpt", "a"), (role, "v"))
    assert [turn.role for turn in prompt_of(given, column="p")] == [expected, "assistant", expected]


def test_messages_may_have_the_keys_of_sharegpt() -> None:
    given = [
        {"from": "system", "value": "s"},
        {"from": "human", "value": "u"},
        {"from": "gpt", "value": "a"},
        {"from": "human", "value": "v", "weight": None},
    ]
    assert prompt_of(given, column="p") == turns(
        ("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "v")
    )


def test_text_parts_are_joined_and_keys_that_nobody_knows_left_out() -> None:
    parts = [{"type": "text", "text": "one ", "image_url": None}, {"type": "text", "text": "two"}]
    given = [{"role": "user", "content": parts, "name": None, "tool_calls": None, "id": 7}]
    assert prompt_of(given, column="p") == turns(("user", "one two"))


def test_turns_with_tools_stay_in_the_history_with_all_that_a_template_prints() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}", "strict": None}}
    given = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "name": "f", "content": "42"},
        {"role": "user", "content": "and?"},
    ]
    found = prompt_of(given, column="p")
    del call["function"]["strict"]  # type: ignore[attr-defined]  # Arrow's padding
    assert [turn.model_dump() for turn in found] == [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "", "tool_calls": (call,)},
        {"role": "tool", "tool_call_id": "1", "name": "f", "content": "42"},
        {"role": "user", "content": "and?"},
    ]


def test_an_old_function_call_is_a_tool_call() -> None:
    call = {"name": "f", "arguments": "{}"}
    given = [*openai(("user", "q")), {"role": "assistant", "content": None, "function_call": call}]
    found = prompt_of([*given, {"role": "function", "name": "f", "content": "42"}], column="p")
    assert found[1].tool_calls == ({"type": "function", "function": call},)
    assert found[2].role == "tool"


def test_marks_of_ones_own_are_read_and_what_stands_before_the_first_is_the_users() -> None:
    transcript = Transcript.model_validate(CHATML)
    text = as_chatml([("user", "hi"), ("assistant", "hey"), ("user", "bye")])
    expected = turns(("user", "hi"), ("assistant", "hey"), ("user", "bye"))
    assert prompt_of(text, column="p", marks=transcript) == expected
    steer = Transcript(user="<extra_id_1>User\n", assistant="<extra_id_1>Assistant\n")
    text = "hi\n<extra_id_1>Assistant\nhey\n<extra_id_1>User\nbye"
    assert prompt_of(text, column="p", marks=steer) == expected


# Prompts that are refused.

NO_PROMPT: dict[str, tuple[object, str]] = {
    "ends with a response": (openai(("user", "q"), ("assistant", "a")), "ends with an assistant turn"),
    "a transcript with its response": ("\n\nHuman: q\n\nAssistant: a", "ends with an assistant turn"),
    "no user": (openai(("system", "s")), "needs a user turn"),
    "an empty list": ([], "needs a user turn"),
    "a list of texts": (["q", "a"], r"list of texts.*p\.0"),
    "a number": (3, "must be a string or a list of messages, got 3"),
    "no content": ([{"role": "user"}], "message 1 must have 'role' and 'content'"),
    "null content": ([{"role": "user", "content": None}], "message 1 has no content"),
    "a message that is none": ([{"role": "user", "content": "q"}, 3], "message 2 must be an object"),
    "an unknown role": (
        openai(("wizard", "q")),
        "message 1 has an unknown role; allowed are .*, got 'wizard'",
    ),
    "a picture": (
        [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
        "only parts of type 'text' are read, got 'image_url'",
    ),
    "content of another form": ([{"role": "user", "content": 3}], "content must be a string"),
    "tool calls of another form": (
        [{"role": "user", "content": "q", "tool_calls": ["f"]}],
        "tool_calls must be a list of objects",
    ),
    "nothing to see": ("\u200b \ufeff\u2060", "is empty"),
    "half a character": ("half \ud83d", "is not valid Unicode"),
    "a list as text": ('[{"role": "user", "content": "q"}]', r"list written as text; json_columns = \['p'\]"),
    "a list as numpy prints it": (
        "[{'role': 'user', 'content': 'q'}\n {'role': 'assistant'}]",
        "list written",
    ),
    "a token in a message": (openai(("user", "<|im_start|>user\nq<|im_end|>")), "rendered conversation"),
    "a Python list as text": ("[{'from': 'human', 'value': 'q'}]", "list written as text"),
    "texts in a list as text": ("['one', 'two']", "list written as text"),
    "ChatML as text": (
        "<|im_start|>user\nq<|im_end|>",
        r"rendered conversation.*<\|im_start\|>.*transcript = ",
    ),
    "Llama 2 as text": ("[INST] q [/INST] a", r"rendered conversation.*\[INST\]"),
    "Llama 3 as text": ("<|start_header_id|>user<|end_header_id|>\n\nq", "rendered conversation"),
    "Guanaco as text": ("### Human: q\n### Assistant: a", "rendered conversation.*### Human:"),
    "Vicuna as text": ("USER: q ASSISTANT: a", "rendered conversation.*USER:"),
    "marks in the middle": ("q\n\nAssistant: a", "rendered conversation.*'Assistant:'"),
    "an ended turn": ("q<|im_end|>", "rendered conversation.*<.im_end.>"),
    "roles after other keys": ('[{"id": 1, "role": "user", "content": "q"}]', "list written as text"),
    "messages in an object": ('{"messages": [{"role": "user", "content": "q"}]}', "list written as text"),
    "User and Assistant at line starts": ("User: q\nAssistant: a\nUser: r", "rendered conversation.*'User:'"),
    "DeepSeek as text": ("<\uff5cUser\uff5c>q<\uff5cAssistant\uff5c>a", "rendered conversation"),
    "a text that begins": ("<bos><start_of_turn>user\nq", "rendered conversation"),
}


@pytest.mark.parametrize("form", NO_PROMPT)
def test_what_is_no_prompt_is_refused_and_named(form: str) -> None:
    value, message = NO_PROMPT[form]
    with pytest.raises(BadRow, match=f"^column 'p'.*{message}"):
        prompt_of(value, column="p")


@pytest.mark.parametrize(
    "text",
    [
        "What does <|im_start|> mean?",
        "He said: Assistant: a person. USER: another.",
        "[see the list]",
        "Human rights",
        '["Sonnet 18" is a poem]',
        '{"role": "Data Engineer", "skills": ["sql"]}',
        '{"from": "2024-01-01", "to": "2024-02-01"}',
        "USER: root\nPASSWORD: x",
        "Human: Hello there!\nRobot: Hi.",
        "### Instruction:\nWrite a story.",
        "Summarize: USER: hi ASSISTANT: hello",
        "{{1, 2}, {3, 4}}",
        '[{"role": "admin", "content": "x"}]',
        "The end token is </s>",
        "<s>struck</s>",
        "Continue:\nUser: hi\nAssistant: hello\nUser: bye",
        "ChatML:\n```\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n```\nis a format.",
        "def f(m): return f'<s>[INST] {m} [/INST]'",
        "Compare ### Human and ### Robot",
    ],
)
def test_a_text_that_only_speaks_of_marks_is_a_text(text: str) -> None:
    assert prompt_of(text, column="p") == turns(("user", text))


# Responses, and prompts that the sides have in common.

WHOLE: dict[str, tuple[Any, Any]] = {
    "HH transcripts": ("\n\nHuman: q\n\nAssistant: a", "\n\nHuman: q\n\nAssistant: b"),
    "message lists": (openai(("user", "q"), ("assistant", "a")), openai(("user", "q"), ("assistant", " b "))),
    "ShareGPT": (
        [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
        [{"from": "human", "value": "q"}, {"from": "gpt", "value": "b"}],
    ),
}


@pytest.mark.parametrize("form", WHOLE)
def test_without_a_prompt_column_the_sides_have_the_prompt_in_common(form: str) -> None:
    chosen, rejected = WHOLE[form]
    expected = (turns(("user", "q")), "a", ["b"])
    assert read({"chosen": chosen, "rejected": rejected}) == expected
    # A column that is called so and holds something else.
    row = {"prompt": "an id", "chosen": chosen, "rejected": rejected}
    assert read(row, columns={"prompt": "off"}) == expected


@pytest.mark.parametrize("form", WHOLE)
def test_sides_that_begin_with_the_prompt_of_the_column_are_read(form: str) -> None:
    chosen, rejected = WHOLE[form]
    for prompt in ("q", openai(("user", "q"))):
        row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        assert read(row) == (turns(("user", "q")), "a", ["b"])


def test_a_response_of_several_turns_is_all_of_the_assistants_last_turns() -> None:
    first = openai(("user", "q"), ("assistant", "same"), ("assistant", "a"))
    second = openai(("user", "q"), ("assistant", "same"), ("assistant", "b"))
    assert read({"chosen": first, "rejected": second}) == (turns(("user", "q")), "same\n\na", ["same\n\nb"])


def test_a_response_goes_on_with_the_transcript_of_its_prompt() -> None:
    row = {"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": " one\n\nAssistant: two", "rejected": " b"}
    assert read(row) == (turns(("user", "q")), "one\n\ntwo", ["b"])
    with pytest.raises(BadRow, match="turn 2 of column 'chosen' is not the assistant's"):
        read({**row, "chosen": " one\n\nHuman: thanks\n\nAssistant: two"})


@pytest.mark.parametrize("start", ["", "\n", "\n\n"])
def test_a_side_may_repeat_the_transcript_of_the_prompt_or_its_last_mark(start: str) -> None:
    row = {"prompt": f"{start}Human: q\n\nAssistant:", "rejected": "Assistant: b"}
    assert read({**row, "chosen": f"{start}Human: q\n\nAssistant: a"}) == (turns(("user", "q")), "a", ["b"])
    with pytest.raises(BadRow, match="column 'chosen' and the prompt are two conversations"):
        read({**row, "chosen": "Human: no\n\nAssistant: a"})
    steer = {"user": "<extra_id_1>User\n", "assistant": "<extra_id_1>Assistant\n"}
    prompt = "q\n<extra_id_1>Assistant\nh\n<extra_id_1>User\nr\n<extra_id_1>Assistant\n"
    row = {"prompt": prompt, "chosen": "<extra_id_1>Assistant\na", "rejected": "b"}
    found = read(row, transcript=steer)
    assert found == (turns(("user", "q"), ("assistant", "h"), ("user", "r")), "a", ["b"])


def test_what_stands_before_the_first_mark_is_a_system_turn_unless_the_assistant_comes_next() -> None:
    chatml = {**CHATML, "system": "<|im_start|>system\n"}
    system = "<|im_start|>system\ns<|im_end|>\n"
    row = {
        "prompt": f"{system}<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n",
        "chosen": "a<|im_end|>",
        "rejected": "b<|im_end|>\n",
    }
    expected = (turns(("system", "s"), ("user", "q")), "a", ["b"])
    assert read(row, transcript=chatml) == expected
    vicuna = {"user": "USER:", "assistant": "ASSISTANT:"}
    row = {"prompt": "s USER: q ASSISTANT:", "chosen": "a", "rejected": "b"}
    assert read(row, transcript=vicuna) == expected
    row = {"prompt": "What is SuperUSER: a site?", "chosen": "a", "rejected": "b"}
    assert read(row, transcript=vicuna)[0] == turns(("user", "What is SuperUSER: a site?"))


@pytest.mark.parametrize(
    ("prompt", "end", "left"),
    [
        ("s USER: hi ASSISTANT:", "</s>", "ASSISTANT:"),
        ("USER: hi</s> more ASSISTANT: a</s>USER: q", "</s>", "</s>"),
    ],
)
def test_a_mark_that_is_left_in_a_turn_is_named(prompt: str, end: str, left: str) -> None:
    marks = {"user": "USER: ", "assistant": "ASSISTANT: ", "end": end}
    with pytest.raises(BadRow, match=f"turn . of column 'prompt' still has the mark '{left}' in it"):
        read({"prompt": prompt, "chosen": "a", "rejected": "b"}, transcript=marks)


def test_only_a_transcript_is_gone_on_with() -> None:
    marks = {"user": "USER:", "assistant": "ASSISTANT:", "end": "</s>"}
    row = {"prompt": "hi</s>", "chosen": "Use ASSISTANT: like so", "rejected": "b"}
    with pytest.raises(BadRow, match="column 'chosen'"):
        read(row, transcript=marks)
    hh = {"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": "a<|im_end|>", "rejected": "b"}
    with pytest.raises(BadRow, match="column 'chosen' holds a rendered conversation"):
        read(hh)


@pytest.mark.parametrize("name", ["operating_system", "ecosystem", "source_system", "system_id", "sys"])
def test_a_column_about_another_system_is_no_system_turn(name: str) -> None:
    row = {name: "Linux", "prompt": "q", "chosen": "a", "rejected": "b"}
    assert read(row) == (turns(("user", "q")), "a", ["b"])


@pytest.mark.parametrize(
    "name", ["System", "systemPrompt", "system-prompts", "sys_prompt", "custom_system_prompt"]
)
@pytest.mark.parametrize("value", ["Be terse.", ["Be terse."], {"text": "Be terse."}])
def test_a_system_turn_of_any_form_and_name_is_not_lost(name: str, value: object) -> None:
    with pytest.raises(BadRow, match=f"column '{name}' has a system turn that would be lost"):
        read({name: value, "prompt": "q", "chosen": "a", "rejected": "b"})


def test_the_same_system_turn_in_two_columns_is_kept_once() -> None:
    row = {"system": "s", "system_prompt": "s", "prompt": "q", "chosen": "a", "rejected": "b"}
    assert read(row, columns={"system": "system"})[0] == turns(("system", "s"), ("user", "q"))


def test_tool_calls_that_no_file_can_hold_are_refused() -> None:
    turn = {"role": "assistant", "content": None, "tool_calls": [{"at": float("nan")}]}
    with pytest.raises(BadRow, match="message 2: tool_calls must be JSON"):
        prompt_of([*openai(("user", "q")), turn, *openai(("user", "r"))], column="p")


def test_json_columns_lead_through_objects_and_lists() -> None:
    row = {"d": ['{"p": "q"}'], "chosen": "a", "rejected": "b"}
    source = Source.model_validate({"path": "x", "json_columns": ["d.0"], "columns": {"prompt": "d.0.p"}})
    assert value_at(open_row(row, source), "d.0.p") == "q"


def test_with_transcripts_off_a_text_is_a_text() -> None:
    text = "\n\nHuman: q\n\nAssistant: a"
    row = {"prompt": text, "chosen": "[INST] x [/INST] y", "rejected": "<|im_start|>user"}
    assert read(row, transcript="off") == (
        turns(("user", text)),
        "[INST] x [/INST] y",
        ["<|im_start|>user"],
    )


def test_in_a_list_of_messages_marks_are_the_users_own_words() -> None:
    given = (("user", "Explain [INST] x [/INST] to me.\n\nHuman: and this"),)
    assert prompt_of(openai(*given), column="p") == turns(*given)


def test_a_prompt_may_begin_with_a_greeting_and_end_with_an_empty_turn() -> None:
    asked = openai(("assistant", "Hi"), ("user", "q"))
    row = {
        "prompt": asked,
        "chosen": openai(("assistant", "a")),
        "rejected": [*asked, *openai(("assistant", "b"))],
    }
    expected = (turns(("assistant", "Hi"), ("user", "q")), "a", ["b"])
    assert read(row) == expected
    assert read({**row, "prompt": [*asked, *openai(("assistant", ""))]}) == expected


def test_a_system_turn_that_says_nothing_is_left_out() -> None:
    sides = {
        name: openai(("system", ""), ("user", "q"), ("assistant", text))
        for name, text in (("chosen", "a"), ("rejected", "b"))
    }
    row = {"system": "", "question": "q", **sides}
    expected = (turns(("user", "q")), "a", ["b"])
    assert read(row, columns={"prompt": "question", "system": "system"}) == expected
    assert read({**row, "system": " \n"}, columns={"prompt": "question"}) == expected


def test_the_same_system_turn_in_its_column_and_in_the_list_is_kept_once() -> None:
    sides = {
        name: openai(("system", "s"), ("user", "q"), ("assistant", text))
        for name, text in (("chosen", "a"), ("rejected", "b"))
    }
    for columns in ({}, {"system": "system"}):
        found = read({"system": "s", **sides}, columns=columns)
        assert found == (turns(("system", "s"), ("user", "q")), "a", ["b"])


def test_a_row_may_reject_several_responses() -> None:
    row = {"prompt": "q", "chosen": "a", "rejected": ["b", "c"]}
    assert read(row) == (turns(("user", "q")), "a", ["b", "c"])
    lists = [openai(("user", "q"), ("assistant", text)) for text in "abc"]
    assert read({"chosen": lists[0], "rejected": lists[1:]}) == (turns(("user", "q")), "a", ["b", "c"])


def test_one_message_may_be_a_response() -> None:
    row = {
        "conversations": [{"from": "human", "value": "q"}],
        "chosen": {"from": "gpt", "value": "a"},
        "rejected": {"from": "gpt", "value": "b"},
    }
    assert read(row, columns={"prompt": "conversations"}) == (turns(("user", "q")), "a", ["b"])


ASKED = openai(("user", "q"))
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "histories that disagree": (
        {
            "chosen": openai(("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "c")),
            "rejected": openai(("user", "q"), ("assistant", "b"), ("user", "r"), ("assistant", "c")),
        },
        "turn 3 of column 'rejected' is not the assistant's, and the column does not begin with the prompt",
    ),
    "histories longer than the prompt": (
        {
            "prompt": "q",
            "chosen": openai(("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "c")),
            "rejected": openai(("user", "q"), ("assistant", "b"), ("user", "r"), ("assistant", "d")),
        },
        r"turn 3 of column 'chosen' is not the assistant's.*columns\.prompt = 'off'",
    ),
    "another question": (
        {"prompt": "q", "chosen": openai(("user", "r"), ("assistant", "a")), "rejected": "b"},
        r"column 'chosen' and the prompt are two conversations: turn 1 differs.*columns\.prompt = 'off'.*'r'",
    ),
    "the last turn is the user's": (
        {"prompt": "q", "chosen": openai(("assistant", "a"), ("user", "thanks!")), "rejected": "b"},
        "turn 2 of column 'chosen' is not the assistant's.*got 'user'",
    ),
    "no response": ({"chosen": ASKED, "rejected": ASKED}, "column 'chosen' ends with the turn of the user"),
    "no response after the prompt": (
        {"prompt": "q", "chosen": "a", "rejected": ASKED},
        "column 'rejected' ends where its response should begin",
    ),
    "a system turn in the chosen side alone": (
        {
            "chosen": openai(("system", "s"), ("user", "q"), ("assistant", "a")),
            "rejected": openai(("user", "q"), ("assistant", "b")),
        },
        "column 'rejected' and the first side are two conversations: turn 1 differs",
    ),
    "other tool calls": (
        {
            side: [
                *openai(("user", "q")),
                {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": name}}]},
                {"role": "tool", "content": "42"},
                *openai(("assistant", side)),
            ]
            for side, name in (("chosen", "f"), ("rejected", "g"))
        },
        "turn 3 of column 'rejected' is not the assistant's, and the column does not begin with the prompt",
    ),
    "several messages and nothing before them": (
        {"prompt": "q", "chosen": "a", "rejected": openai(("assistant", "b"), ("assistant", "c"))},
        "column 'rejected' holds several messages of the assistant.*one response or several",
    ),
    "another system column": (
        {"systemPrompt": "Be terse.", "system": "", "prompt": "q", "chosen": "a", "rejected": "b"},
        "column 'systemPrompt' has a system turn that would be lost",
    ),
    "no prompt in its column": (
        {"prompt": None, "chosen": "a", "rejected": "b"},
        r"column 'prompt' has no prompt; columns\.prompt = 'off'",
    ),
    "a runaway response": (
        {"prompt": "q", "chosen": "a\n\nHuman: thanks", "rejected": "b"},
        "column 'chosen' holds a rendered conversation",
    ),
    "a system turn in one side": (
        {
            "prompt": "q",
            "chosen": openai(("system", "s"), ("user", "q"), ("assistant", "a")),
            "rejected": "b",
        },
        r"begins with a system turn that the prompt lacks.*columns\.prompt = 'off'",
    ),
    "plain texts without a prompt": (
        {"chosen": "a", "rejected": "b"},
        r"neither a column 'prompt' nor a whole conversation in column 'chosen'; columns\.prompt names.*, "
        r"got 'a'",
    ),
    "one side is a plain transcript of another conversation": (
        {"prompt": "q", "chosen": "\n\nHuman: r\n\nAssistant: a", "rejected": "b"},
        "column 'chosen' and the prompt are two conversations",
    ),
    "a response that calls a tool": (
        {
            "prompt": "q",
            "chosen": [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}],
            "rejected": "b",
        },
        "column 'chosen': the response calls a tool",
    ),
    "an invisible response": ({"prompt": "q", "chosen": "\u200b", "rejected": "b"}, "non-empty response"),
    "one of several": ({"prompt": "q", "chosen": "a", "rejected": ["b", ""]}, "column 'rejected.1' must be"),
    "the same response among several": (
        {"prompt": "q", "chosen": "a", "rejected": ["b", "a "]},
        "chosen and rejected are the same response",
    ),
    "a system column": (
        {"system": "You are terse.", "prompt": "q", "chosen": "a", "rejected": "b"},
        r"column 'system' has a system turn that would be lost; columns\.system = 'system' keeps it",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_row_whose_structure_is_wrong_is_refused_and_the_fault_named(case: str) -> None:
    row, message = REFUSED[case]
    with pytest.raises(BadRow, match=message):
        read(row)


@pytest.mark.parametrize("value", [[], [{"role": "assistant"}], None, 3, {"content": "a"}, [[]], [3]])
def test_a_response_of_another_form_is_refused(value: object) -> None:
    with pytest.raises(BadRow, match="column 'chosen'"):
        read({"prompt": "q", "chosen": value, "rejected": "b"})


def test_a_system_column_begins_the_prompt_or_is_left_out_and_counted() -> None:
    row = {"system": "s", "prompt": "q", "chosen": "a", "rejected": openai(("user", "q"), ("assistant", "b"))}
    assert read(row, columns={"system": "system"})[0] == turns(("system", "s"), ("user", "q"))
    for empty in ("", None, " \n"):
        assert read({**row, "system": empty}, columns={"system": "system"})[0] == turns(("user", "q"))
    source = Source.model_validate({"path": "x.jsonl", "columns": {"system": "off"}})
    found = read_pairs(row, source, ())
    assert found.prompt.messages == turns(("user", "q"))
    assert found.left_out == {"system turns": 1}
    own = openai(("system", "other"), ("user", "q"))
    with pytest.raises(BadRow, match="has a system turn, and the prompt begins with another"):
        read({**row, "prompt": own, "rejected": "b"}, columns={"system": "system"})


@pytest.mark.parametrize("column", ["chosen", "rejected", "response"])
def test_a_response_can_be_no_prompt(column: str) -> None:
    with pytest.raises(ValueError, match=r"a prompt would hold its own answer.*columns\.prompt = 'off'"):
        Source.model_validate({"path": "x.jsonl", "columns": {"prompt": column}})


@pytest.mark.parametrize(
    ("text", "expected"), [("a", True), ("é", True), ("😀", True), ("\u200b\u2060", False), ("\u3164", False)]
)
def test_what_can_be_seen(text: str, expected: bool) -> None:
    assert is_visible(text) is expected
