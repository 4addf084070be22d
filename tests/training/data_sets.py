"""Rows of the data sets of docs/data.md, made for the tests in their schemas, and what is to be read of
them."""

import re
import tomllib
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs" / "data.md"
NAMES = ("helpful", "harmless", "truthful", "brevity")
SNIPPETS = {
    name: tomllib.loads(toml)
    for name, toml in re.findall(
        r"^### (\S+)\n```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.M | re.S
    )
}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def ultrafeedback(text: str, helpfulness: str, truthfulness: str) -> dict[str, Any]:
    ratings = {"helpfulness": helpfulness, "truthfulness": truthfulness, "honesty": "3"}
    annotations = {
        name: {"Rating": rating, "Rationale": "because", "Type": None} for name, rating in ratings.items()
    }
    return {
        "annotations": annotations,
        "custom_system_prompt": "Be helpful.",
        "model": "m",
        "response": text,
        "overall_score": 7.0,
    }


ROWS: dict[str, list[dict[str, Any]]] = {
    "Anthropic/hh-rlhf": [
        {
            "chosen": "\n\nHuman: q\n\nAssistant: h\n\nHuman: r\n\nAssistant: a",
            "rejected": "\n\nHuman: q\n\nAssistant: h\n\nHuman: r\n\nAssistant: b",
        }
    ],
    "trl-lib/hh-rlhf-helpful-base": [
        {
            "prompt": [user("q"), assistant("h"), user("r")],
            "chosen": [assistant("a")],
            "rejected": [assistant("b")],
        }
    ],
    "HuggingFaceH4/ultrafeedback_binarized": [
        {
            "prompt": "q",
            "prompt_id": "1",
            "chosen": [user("q"), assistant("a")],
            "rejected": [user("q"), assistant("b")],
            "messages": [user("q"), assistant("a")],
            "score_chosen": 8.0,
            "score_rejected": 7.0,
        }
    ],
    "argilla/dpo-mix-7k": [
        {
            "dataset": "argilla/capybara",
            "chosen": [user("q"), assistant("h"), user("r"), assistant("a")],
            "rejected": [user("q"), assistant("h"), user("r"), assistant("b")],
            "chosen_rating": 5.0,
            "rejected_rating": 4.0,
        }
    ],
    "Skywork/Skywork-Reward-Preference-80K-v0.2": [
        {"chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")], "source": "magpie"}
    ],
    "Intel/orca_dpo_pairs": [
        {"system": "s", "question": "q", "chosen": "a", "rejected": "b"},
        {"system": "", "question": "r", "chosen": "a", "rejected": "b"},
    ],
    "llamafactory/DPO-En-Zh-20k": [
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "a"},
            "rejected": {"from": "gpt", "value": "b"},
        }
    ],
    "PKU-Alignment/PKU-SafeRLHF": [
        {
            "prompt": "q",
            "response_0": "a",
            "response_1": "b",
            "is_response_0_safe": True,
            "is_response_1_safe": False,
            "better_response_id": 1,
            "safer_response_id": 0,
        }
    ],
    "nvidia/HelpSteer3": [
        {
            "domain": "general",
            "language": "english",
            "context": [user("q")],
            "response1": "a",
            "response2": "b",
            "overall_preference": strength,
            "individual_preference": [{"score": strength, "reasoning": "because", "feedback1": "f"}],
        }
        for strength in (-2, 0, 1)
    ],
    "nvidia/HelpSteer2": [
        {
            "prompt": prompt,
            "response": text,
            "helpfulness": h,
            "correctness": c,
            "coherence": 4,
            "complexity": 1,
            "verbosity": v,
        }
        for prompt, text, h, c, v in (
            ("q\n<extra_id_1>Assistant\nh\n<extra_id_1>User\nr", "a", 4, 4, 2),
            ("q\n<extra_id_1>Assistant\nh\n<extra_id_1>User\nr", "b", 1, 4, 1),
        )
    ],
    "stanfordnlp/SHP": [
        {
            "post_id": "1",
            "domain": "askculinary_train",
            "history": "q",
            "human_ref_A": "a",
            "human_ref_B": "b",
            "labels": int(first > second),
            "score_A": first,
            "score_B": second,
            "score_ratio": 2.0,
        }
        for first, second in ((50, 10), (10, 15), (5, 50))
    ],
    "openai/summarize_from_feedback": [
        {
            "info": {"id": "1", "post": "q", "title": "t", "subreddit": "s", "site": None, "article": None},
            "summaries": [
                {"text": " a", "policy": "sup1", "note": None},
                {"text": " b", "policy": "sup2", "note": None},
            ],
            "choice": 1,
            "worker": "w",
            "batch": "1",
            "split": "train",
            "extra": {"confidence": 8},
        }
    ],
    "openbmb/UltraFeedback": [
        {
            "source": "evol_instruct",
            "instruction": "q",
            "models": ["m"],
            "completions": [ultrafeedback("a", "4", "5"), ultrafeedback("b", "2", "N/A")],
            "correct_answers": ["None"],
        }
    ],
    "RLHFlow/ArmoRM-Multi-Objective-Data-v0.1": [
        {
            "dataset": "d",
            "messages": [user("q"), assistant("h"), user("r"), assistant(text)],
            "helpsteer-helpfulness": helpful,
            "beavertails-is_safe": safe,
        }
        for text, helpful, safe in (("a", 0.75, None), ("b", 0.25, None), ("c", None, 1.0))
    ],
    "berkeley-nest/Nectar": [
        {
            "prompt": "\n\nHuman: q\n\nAssistant: ",
            "answers": [
                {"answer": "a", "model": "m", "rank": 1.0},
                {"answer": "b", "model": "n", "rank": 2.0},
            ],
            "turns": 1,
            "num_responses": 2,
            "source": ["lmsys-chat-1m"],
            "good_natured": True,
        }
    ],
    "lmsys/chatbot_arena_conversations": [
        {
            "question_id": "1",
            "model_a": "m",
            "model_b": "n",
            "winner": winner,
            "conversation_a": [user("q"), assistant("a")],
            "conversation_b": [user("q"), assistant("b")],
            "turn": 1,
            "language": "English",
            "tstamp": 1.5,
        }
        for winner in ("model_b", "tie", "tie (bothbad)")
    ],
    "HuggingFaceH4/ultrachat_200k": [
        {"prompt": "q", "prompt_id": "1", "messages": [user("q"), assistant("a"), user("r"), assistant("b")]}
    ],
}

Q, MORE = (("user", "q"),), (("user", "q"), ("assistant", "h"), ("user", "r"))
PAIRS: dict[str, set[tuple[tuple[tuple[str, str], ...], str, str, str]]] = {
    "Anthropic/hh-rlhf": {(MORE, "helpful", "a", "b")},
    "trl-lib/hh-rlhf-helpful-base": {(MORE, "helpful", "a", "b")},
    "HuggingFaceH4/ultrafeedback_binarized": {(Q, "overall", "a", "b")},
    "argilla/dpo-mix-7k": {(MORE, "overall", "a", "b")},
    "Skywork/Skywork-Reward-Preference-80K-v0.2": {(Q, "overall", "a", "b")},
    "Intel/orca_dpo_pairs": {
        ((("system", "s"), ("user", "q")), "overall", "a", "b"),
        ((("user", "r"),), "overall", "a", "b"),
    },
    "llamafactory/DPO-En-Zh-20k": {(Q, "overall", "a", "b")},
    "PKU-Alignment/PKU-SafeRLHF": {(Q, "helpful", "b", "a"), (Q, "harmless", "a", "b")},
    "nvidia/HelpSteer3": {(Q, "overall", "a", "b"), (Q, "overall", "b", "a")},
    "nvidia/HelpSteer2": {(MORE, "helpful", "a", "b"), (MORE, "brevity", "b", "a")},
    "stanfordnlp/SHP": {(Q, "helpful", "a", "b"), (Q, "helpful", "b", "a")},
    "openai/summarize_from_feedback": {(Q, "overall", "b", "a")},
    "openbmb/UltraFeedback": {(Q, "helpful", "a", "b")},
    "RLHFlow/ArmoRM-Multi-Objective-Data-v0.1": {(MORE, "helpful", "a", "b")},
    "berkeley-nest/Nectar": {(Q, "overall", "a", "b")},
    "lmsys/chatbot_arena_conversations": {(Q, "overall", "b", "a")},
    "HuggingFaceH4/ultrachat_200k": set(),
}
LEFT_OUT = {
    "nvidia/HelpSteer3": {"overall: ties": 1},
    "nvidia/HelpSteer2": {"truthful: ties": 1},
    "stanfordnlp/SHP": {"helpful: ties": 1},
    "openbmb/UltraFeedback": {"truthful: missing": 1, "system turns": 2},
    "RLHFlow/ArmoRM-Multi-Objective-Data-v0.1": {"helpful: missing": 1, "harmless: missing": 2},
    "lmsys/chatbot_arena_conversations": {"overall: ties": 2},
}


def local(name: str) -> dict[str, Any]:
    """The snippet of a data set without what belongs to a hub."""
    of_a_hub = ("dataset", "name", "data_dir", "revision", "dataset_split", "streaming")
    return {key: value for key, value in SNIPPETS[name].items() if key not in of_a_hub}
