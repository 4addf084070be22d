"""The demo's answers: drawn as the policy is, one seed for a prompt, another one for another prompt."""

from dataclasses import dataclass, field
from typing import Any

from preforch_training.demo import show
from preforch_training.sampling.settings import Sampling


@dataclass
class Answer:
    """What `show` reads of an answer."""

    text: str
    weights: dict[str, float]


@dataclass
class Client:
    """Answers every prompt with a joke and remembers how it was asked."""

    asked: list[dict[str, Any]] = field(default_factory=list)

    def generate(self, prompt: str, **options: Any) -> Answer:
        self.asked.append({"prompt": prompt, **options})
        weights = options["weights"] or {"helpful": 0.1, "harmless": 0.1, "humor": 0.8}
        return Answer("My grandma juggles pickles on a unicycle, lol!", weights)


def test_answers_are_drawn_as_the_policy_is_and_every_prompt_has_a_seed_of_its_own() -> None:
    client = Client()
    shown = show.show(client, Sampling(temperature=0.6, top_p=0.8, max_tokens=7, dtype="auto"))  # type: ignore[arg-type]
    assert {(a["temperature"], a["top_p"], a["max_tokens"]) for a in client.asked} == {(0.6, 0.8, 7)}
    seeds = {prompt: {a["seed"] for a in client.asked if a["prompt"] == prompt} for prompt in prompts(client)}
    assert [len(found) for found in seeds.values()] == [1] * 6
    assert len(set().union(*seeds.values())) == 6
    assert shown.count("My grandma juggles pickles") == 18
    assert "counted per answer" in shown


def prompts(client: Client) -> list[str]:
    return list(dict.fromkeys(a["prompt"] for a in client.asked))
