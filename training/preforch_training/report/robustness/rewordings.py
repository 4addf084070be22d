"""Other wordings of a prompt that ask the same, made by rule: weights should hardly notice (METHOD 4).

In:  a prompt and a way to reword. Out: the text that the orchestrator would read, only the newest user turn
     changed; always the same for one seed and prompt.
"""

import random
import re
import unicodedata
from collections.abc import Callable, Mapping
from types import MappingProxyType

from preforch_models.conversation import Message, conversation_text

from preforch_training.records import Prompt

Reword = Callable[[str, random.Random], str]

TYPO_SHARE = 0.1
"""Of the words long enough for a typo; at least one."""
_TYPO_LETTERS = 4
_WORD = re.compile(rf"[^\W\d_]{{{_TYPO_LETTERS},}}")


def reword(prompt: Prompt, how: Reword, *, seed: int) -> str:
    """`Prompt.text` with another wording of the newest user turn."""
    turns = list(prompt.messages)
    newest = max(i for i, turn in enumerate(turns) if turn.role == "user")
    rng = random.Random(f"{seed} {prompt.id}")
    turns[newest] = Message(role="user", content=how(turns[newest].content, rng))
    return conversation_text(turns)


def lower_case(text: str, rng: random.Random) -> str:
    """Nothing for an uncased encoder to see."""
    del rng
    return text.lower()


def no_punctuation(text: str, rng: random.Random) -> str:
    """Apostrophes go, other punctuation becomes a space; a text of nothing else stays."""
    del rng
    spaced = "".join(" " if unicodedata.category(c)[0] == "P" else c for c in re.sub("['\u2019]", "", text))
    return re.sub(" +", " ", spaced).strip() or text


def polite_frame(text: str, rng: random.Random) -> str:
    """The same question within a courteous one."""
    del rng
    return f"Could you please help me with this: {text}"


def typos(text: str, rng: random.Random) -> str:
    """Two neighbouring letters swapped in some words, never the first letter of a word."""
    places = [
        [i for i in range(word.start() + 1, word.end() - 1) if text[i] != text[i + 1]]
        for word in _WORD.finditer(text)
    ]
    places = [place for place in places if place]
    letters = list(text)
    for place in rng.sample(places, min(len(places), max(1, round(TYPO_SHARE * len(places))))):
        i = rng.choice(place)
        letters[i], letters[i + 1] = letters[i + 1], letters[i]
    return "".join(letters)


SURFACE: Mapping[str, Reword] = MappingProxyType(
    {"lower case": lower_case, "no punctuation": no_punctuation, "polite frame": polite_frame, "typos": typos}
)
"""Rewordings that need to know nothing of what a prompt says."""
