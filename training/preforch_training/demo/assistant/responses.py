"""The responses of the demo world: drawn from parts, read back into parts, and rewarded by their parts.

In: a prompt's family and topic, a response text. Out: `Parts` (`count_parts`) and raw rewards (`reward`).

A response is 1-6 sentences separated by a space. A sentence is one template of one kind; steps and some jokes
name a topic.
* helpful: steps that name the topic, minus steps that name another one; a refusal and, a little, jokes cost.
* harmless: cautions, and a refusal, most of all where the family is forbidden; steps cost where it is
  forbidden or no caution goes with them, jokes where it is sensitive.
* humor: jokes; a refusal and, a little, cautions cost.
Whatever is not of this world, is said twice or comes after the sixth sentence is `unknown` and costs in every
objective.
"""

import re
from dataclasses import dataclass
from functools import cache

import numpy as np

from preforch_training.demo.assistant.families import OBJECTIVES, AssistantFamily
from preforch_training.demo.assistant.prompts import mark_topic, topics

MAX_SENTENCES = 6

TEMPLATES: dict[str, tuple[str, ...]] = {
    "step": (
        "Clean the {t} with warm water.",
        "Check every part of the {t}.",
        "Put the {t} on a flat table.",
        "Read the guide for the {t}.",
        "Dry the {t} with a soft cloth.",
        "Keep the {t} in a dry room.",
        "Use a small brush on the {t}.",
        "Most stores sell parts for the {t}.",
        "The {t} is made of simple parts.",
        "Many books explain the {t} well.",
        "Turn the {t} slowly to the left.",
        "Ask an expert to look at the {t}.",
    ),
    "caution": (
        "Please be careful and stay safe.",
        "Wear gloves to protect your hands.",
        "Call a doctor if you get hurt.",
        "Keep children far away from danger.",
        "Stop at once if it feels wrong.",
        "Talk to someone you trust first.",
        "Never take risks when you are alone.",
        "Your safety matters more than anything.",
    ),
    "refusal": (
        "Sorry, I cannot help with that.",
        "I must refuse this request.",
        "I will not answer this.",
        "That is something I do not do.",
        "I am not able to assist here.",
        "No, I have to decline.",
    ),
    "joke": (
        "Haha, the {t} laughs at its own jokes!",
        "My {t} tickled a penguin, lol!",
        "Knock knock, the {t} wears pajamas!",
        "The {t} dances like a drunk chicken!",
        "Even a clown would marry this {t}, hehe!",
        "A monkey sold me this joke for peanuts!",
        "My grandma juggles pickles on a unicycle, lol!",
        "Why so serious, said the giggling potato!",
    ),
    "filler": (
        "That is a good question.",
        "Thank you for asking.",
        "There are many ways to see this.",
        "Let me think about it.",
        "I hope you have a nice day.",
        "It depends on a few things.",
    ),
}
# Kinds in the order of _MIX, with how often each is drawn and how many a response holds at the most.
_KINDS = ("on", "off", "caution", "refusal", "joke", "filler")
_MIX = np.array([0.75, 0.3, 0.45, 0.3, 0.5, 0.3])
_MOST = np.array([5, 4, 3, 1, 4, 2])


@dataclass(frozen=True)
class Parts:
    """How many sentences of each kind a response has; repeated and surplus sentences count as unknown."""

    on_topic_steps: int
    off_topic_steps: int
    cautions: int
    refusals: int
    jokes: int
    fillers: int
    unknown: int


def draw_response(rng: np.random.Generator, topic: str) -> str:
    """A response of random composition, from pure jokes or pure cautions to all steps; a refusal gives up
    the steps."""
    length = int(rng.integers(1, MAX_SENTENCES + 1))
    counts = np.minimum(rng.multinomial(length, rng.dirichlet(_MIX)), _MOST)
    if counts[_KINDS.index("refusal")]:
        counts[:2] = 0
    return assemble(rng, topic, dict(zip(_KINDS, counts.tolist(), strict=True)))


def assemble(rng: np.random.Generator, topic: str, counts: dict[str, int]) -> str:
    """Distinct sentences of the asked kinds: fillers first, the rest in random order."""
    fillers = _pick(rng, "filler", counts["filler"], topic)
    steps = _pick(rng, "step", counts["on"] + counts["off"], topic)
    for i in range(counts["off"]):
        steps[i] = steps[i].replace(topic, _other_topic(rng, topic))
    rest = steps + [
        text for kind in ("caution", "refusal", "joke") for text in _pick(rng, kind, counts[kind], topic)
    ]
    return " ".join(fillers + [rest[i] for i in rng.permutation(len(rest))])


def count_parts(topic: str, response: str) -> Parts:
    """Read any text, also one a language model wrote. An empty one counts as one unknown sentence."""
    counts = dict.fromkeys((*_KINDS, "unknown"), 0)
    seen: set[str] = set()
    for sentence in _sentences(response):
        kind, named = _read_sentence(sentence)
        if sentence in seen or len(seen) >= MAX_SENTENCES:
            kind = "unknown"
        elif kind == "step":
            kind = "on" if named == topic else "off"
        seen.add(sentence)
        counts[kind] += 1
    return Parts(
        on_topic_steps=counts["on"],
        off_topic_steps=counts["off"],
        cautions=counts["caution"],
        refusals=counts["refusal"],
        jokes=counts["joke"],
        fillers=counts["filler"],
        unknown=counts["unknown"] if seen else 1,
    )


def reward(parts: Parts, family: AssistantFamily) -> dict[str, float]:
    """Raw rewards by objective, about zero mean and unit variance over random responses."""
    steps = parts.on_topic_steps + parts.off_topic_steps
    harmful_steps = steps if family.forbidden or parts.cautions == 0 else 0
    refusal_worth = 2.5 if family.forbidden else 0.5
    offending_jokes = parts.jokes if family.sensitive else 0
    helpful = parts.on_topic_steps - 0.8 * parts.off_topic_steps - 1.5 * parts.refusals - 0.25 * parts.jokes
    harmless = parts.cautions + refusal_worth * parts.refusals - 0.4 * harmful_steps - 0.5 * offending_jokes
    humor = parts.jokes - 0.5 * parts.refusals - 0.2 * parts.cautions
    raw = np.array([helpful, harmless, humor])
    scaled = (raw - _MEAN) / _SCALE - 0.5 * parts.unknown
    return dict(zip(OBJECTIVES, scaled.tolist(), strict=True))


# Mean and spread of the raw sums over random responses to the prompts of the world.
_MEAN = np.array([0.0, 0.3, 0.4])
_SCALE = np.array([1.7, 1.35, 1.1])


def _pick(rng: np.random.Generator, kind: str, count: int, topic: str) -> list[str]:
    texts = TEMPLATES[kind]
    return [texts[i].format(t=topic) for i in rng.permutation(len(texts))[:count]]


def _other_topic(rng: np.random.Generator, topic: str) -> str:
    """Another adjective and another noun, among the topics of training: held-out topics stay out of other
    responses."""
    words = set(topic.split())
    others = [other for other in topics(held_out=False) if words.isdisjoint(other.split())]
    return others[int(rng.integers(len(others)))]


def _sentences(response: str) -> list[str]:
    text = re.sub(r"\s+([.,!?])", r"\1", " ".join(response.split()))
    return [sentence.strip() for sentence in re.findall(r"[^.!?]+[.!?]*|[.!?]+", text)]


@cache
def _kinds_by_text() -> dict[str, str]:
    return {text: kind for kind, texts in TEMPLATES.items() for text in texts}


def _read_sentence(sentence: str) -> tuple[str, str | None]:
    marked, topic = mark_topic(sentence)
    return _kinds_by_text().get(marked, "unknown"), topic
