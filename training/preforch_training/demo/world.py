"""What a world is: prompts, preference pairs and their truth (METHOD 10), whatever they are about.

In: a seed and numbers of prompts. Out: `DemoData`, and methods that recompute the truth from texts alone.

1. Prompts are drawn per family without repetition. `validation` uses the phrasings and topics of `train` in
   other combinations; `test_phrasing`, `test_topic` and `test_both` hold out phrasings, topics and both.
2. Per prompt 16 distinct random responses are drawn. The chosen one is the best under w°(x).r(x, y) plus
   Gumbel noise; it is published with three random others.
3. "overall" pairs put the chosen response against each of the three. Per objective, all pairs of the four are
   labelled by a Bradley-Terry draw under r_k; exact ties are dropped.
4. In the test splits there is no noise: the best response is the true best and pairs show the true order.
Nothing but the evaluation may read `true_weights` and `true_rewards`.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np

TEST_SPLITS = ("test_phrasing", "test_topic", "test_both")
NEW_PHRASINGS, NEW_TOPICS = ("test_phrasing", "test_both"), ("test_topic", "test_both")
CANDIDATES = 16
PUBLISHED = 4
GUMBEL_SCALE = 0.15
BRADLEY_TERRY_SCALE = 4.0
_JITTER = 0.05


@dataclass(frozen=True)
class Family:
    """A kind of prompt. `weights` in the order of the world's objectives; `share` of all prompts.

    A phrasing has one slot `{t}` for the topic.
    """

    name: str
    weights: tuple[float, ...]
    share: float
    phrasings: tuple[str, ...]
    held_out_phrasings: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """What a prompt text says."""

    family: Family
    phrasing: str
    topic: str


@dataclass(frozen=True)
class DemoPrompt:
    """`split` is "train", "validation", "test_phrasing", "test_topic" or "test_both"; `true_weights` is
    w°(x)."""

    id: str
    text: str
    family: str
    topic: str
    split: str
    true_weights: dict[str, float]


@dataclass(frozen=True)
class DemoPair:
    """`objective` is the name of an objective or "overall"."""

    id: str
    prompt_id: str
    objective: str
    chosen: str
    rejected: str
    split: str


@dataclass(frozen=True)
class DemoData:
    prompts: list[DemoPrompt]
    pairs: list[DemoPair]


@dataclass(frozen=True)
class Texts(Sequence[str]):
    """Every phrasing with every topic, made when it is asked for."""

    phrasings: Sequence[str]
    topics: Sequence[str]

    def __len__(self) -> int:
        return len(self.phrasings) * len(self.topics)

    def __getitem__(self, place: int) -> str:  # type: ignore[override]  # no slices are asked for
        phrasing, topic = divmod(place, len(self.topics))
        return self.phrasings[phrasing].format(t=self.topics[topic])


class World(ABC):
    """A generated world. What it says of itself is `objectives`, in its own order, `families`, and how its
    prompts and responses are made and read."""

    objectives: tuple[str, ...]
    families: Sequence[Family]

    @abstractmethod
    def topics(self, split: str) -> Sequence[str]:
        """What the prompts of a split are about: distinct texts."""

    @abstractmethod
    def read_prompt(self, prompt: str) -> Reading:
        """Raises ValueError for a text that is not a prompt of this world."""

    @abstractmethod
    def draw_response(self, rng: np.random.Generator, topic: str) -> str:
        """A response of random composition."""

    @abstractmethod
    def true_rewards(self, prompt: str, response: str) -> dict[str, float]:
        """r(x, y) by objective, from the texts alone: about zero mean and unit variance over random
        responses. Raises ValueError for a prompt that is not of this world."""

    def true_weights(self, prompt: str, objectives: Sequence[str] = ()) -> dict[str, float]:
        """The weights w°(x), summing to 1: those of the family, varied a little by a hash of the text. Of
        some objectives alone: as they stand to each other among all of them."""
        family = self.read_prompt(prompt).family
        digest = hashlib.sha256(" ".join(prompt.split()).encode()).digest()
        moved = [
            max(0.02, weight + _JITTER * (2 * int.from_bytes(digest[4 * k : 4 * k + 4], "big") / 2**32 - 1))
            for k, weight in enumerate(family.weights)
        ]
        known = dict(zip(self.objectives, moved, strict=True))
        names = objectives or self.objectives
        total = sum(known[name] for name in names)
        return {name: known[name] / total for name in names}

    def generate(
        self,
        *,
        seed: int,
        train_prompts: int,
        validation_prompts: int,
        test_prompts: int,
        objectives: Sequence[str] = (),
    ) -> DemoData:
        """The same data for the same arguments; `test_prompts` counts per test split. With `objectives` that
        are some of the world's, nobody in it wishes for anything else.

        The training data does not depend on the other two numbers. Raises ValueError where a family has too
        few texts, and for an objective that the world does not have.
        """
        if unknown := sorted(set(objectives) - set(self.objectives)):
            raise ValueError(
                f"objectives {unknown} are none of this world's, which are {list(self.objectives)}"
            )
        # In the world's order: data do not depend on the order in which a run names its objectives.
        names = [name for name in self.objectives if name in (objectives or self.objectives)]
        learning = self._draw_texts(seed, "train", [train_prompts, validation_prompts])
        texts = {"train": learning[0], "validation": learning[1]}
        texts |= {split: self._draw_texts(seed, split, [test_prompts])[0] for split in TEST_SPLITS}
        prompts: list[DemoPrompt] = []
        pairs: list[DemoPair] = []
        for split, split_texts in texts.items():
            rng = _rng(seed, split, "responses")
            for i, text in enumerate(split_texts):
                prompt = self._prompt(f"{split}-{i:06d}", text, split, names)
                prompts.append(prompt)
                pairs.extend(self._pairs(rng, prompt))
        return DemoData(prompts, pairs)

    def hash(self) -> str:
        """sha256 over a fixed draw of this world and its truth: which world a report was measured on.

        Over what is generated and not over source files, which may move and be rewrapped.
        """
        drawn = self.generate(seed=0, train_prompts=100, validation_prompts=20, test_prompts=20)
        texts = {prompt.id: prompt.text for prompt in drawn.prompts}
        rewards = [
            [self.true_rewards(texts[pair.prompt_id], response) for response in (pair.chosen, pair.rejected)]
            for pair in drawn.pairs
        ]
        content = [list(map(asdict, drawn.prompts)), list(map(asdict, drawn.pairs)), rewards]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def held_out_examples(self, n: int) -> list[str]:
        """n prompts with held-out phrasing and topic for showing, cycling through the families."""
        held_out = self.topics("test_both")
        places = range(len(self.families[0].held_out_phrasings))
        rounds = [(family, i) for i in places for family in self.families]
        if not 0 <= n <= len(rounds):
            raise ValueError(f"held_out_examples: n is {n}, allowed are 0 to {len(rounds)}")
        return [
            family.held_out_phrasings[i].format(t=held_out[(5 * place) % len(held_out)])
            for place, (family, i) in enumerate(rounds[:n])
        ]

    def _draw_texts(self, seed: int, split: str, counts: list[int]) -> list[list[str]]:
        """Disjoint lists of distinct prompt texts, each with the families' shares and in random order."""
        rng = _rng(seed, split, "prompts")
        drawn: list[list[str]] = [[] for _ in counts]
        quotas = [self._quotas(count) for count in counts]
        for place, family in enumerate(self.families):
            phrasings = family.held_out_phrasings if split in NEW_PHRASINGS else family.phrasings
            texts = Texts(phrasings, self.topics(split))
            wanted = [quota[place] for quota in quotas]
            if sum(wanted) > len(texts):
                raise ValueError(
                    f"{split}: {sum(counts)} prompts need {sum(wanted)} texts of the family {family.name!r}, "
                    f"which has {len(texts)}; ask for fewer prompts"
                )
            order = rng.permutation(len(texts)).tolist()
            for part, count in zip(drawn, wanted, strict=True):
                part.extend(texts[i] for i in order[:count])
                order = order[count:]
        # One generator per list, so that the order of the first does not depend on the size of the second.
        return [
            [part[i] for i in _rng(seed, split, f"order {k}").permutation(len(part))]
            for k, part in enumerate(drawn)
        ]

    def _quotas(self, count: int) -> list[int]:
        """Whole numbers by largest remainder, in proportion to the families' shares."""
        exact = [family.share * count for family in self.families]
        quotas = [int(share) for share in exact]
        by_remainder = sorted(range(len(exact)), key=lambda i: quotas[i] - exact[i])
        for i in by_remainder[: count - sum(quotas)]:
            quotas[i] += 1
        return quotas

    def _prompt(self, prompt_id: str, text: str, split: str, names: Sequence[str]) -> DemoPrompt:
        reading = self.read_prompt(text)
        weights = self.true_weights(text, names)
        return DemoPrompt(prompt_id, text, reading.family.name, reading.topic, split, weights)

    def _pairs(self, rng: np.random.Generator, prompt: DemoPrompt) -> Iterator[DemoPair]:
        noisy = prompt.split not in TEST_SPLITS
        candidates = self._candidates(rng, prompt.topic)
        rewards = [self.true_rewards(prompt.text, response) for response in candidates]
        weights = prompt.true_weights
        utility = np.array([sum(weight * each[name] for name, weight in weights.items()) for each in rewards])
        best = int(np.argmax(utility + noisy * rng.gumbel(scale=GUMBEL_SCALE, size=CANDIDATES)))
        others = rng.permutation([i for i in range(CANDIDATES) if i != best])[: PUBLISHED - 1].tolist()
        for number, other in enumerate(others):
            if noisy or utility[other] < utility[best]:
                yield _pair(prompt, "overall", number, candidates[best], candidates[other])
        for name in prompt.true_weights:
            for number, (a, b) in enumerate(combinations([best, *others], 2)):
                margin = rewards[a][name] - rewards[b][name]
                noise = rng.logistic(scale=1 / BRADLEY_TERRY_SCALE)
                if abs(margin) > 1e-9:
                    first, second = (a, b) if margin + noisy * noise > 0 else (b, a)
                    yield _pair(prompt, name, number, candidates[first], candidates[second])

    def _candidates(self, rng: np.random.Generator, topic: str) -> list[str]:
        """Distinct texts, so that no response is preferred to itself."""
        found: dict[str, None] = {}
        while len(found) < CANDIDATES:
            found.setdefault(self.draw_response(rng, topic))
        return list(found)


def _rng(seed: int, split: str, purpose: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{split}/{purpose}".encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])


def _pair(prompt: DemoPrompt, objective: str, number: int, chosen: str, rejected: str) -> DemoPair:
    return DemoPair(
        f"{prompt.id}-{objective}-{number:02d}", prompt.id, objective, chosen, rejected, prompt.split
    )
