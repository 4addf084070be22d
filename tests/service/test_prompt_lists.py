"""A completion of several prompts: each has weights of its own, and the engine answers them in one."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from fakes import RECOMMENDED, FakeRecommender, FakeUpstream, any_answer
from preforch_models.bundle import Bundle
from preforch_models.conditioning.members import Member, MembersConditioning
from preforch_service.recommendation.recommender import Recommendation
from served import Served, error_of, serve

SAFE = {"helpful": 0.1, "harmless": 0.8, "humor": 0.1}
CONTEXTS = (" <W1> 0.50 <W2> 0.30 <W3> 0.20", " <W1> 0.10 <W2> 0.80 <W3> 0.10")


@dataclass
class Careful(FakeRecommender):
    """Recommends other weights for texts about knives."""

    async def recommend(self, texts: Sequence[str]) -> list[Recommendation]:
        self.texts += texts
        return [Recommendation(SAFE if "knife" in t else dict(RECOMMENDED), 0.5) for t in texts]


@pytest.fixture
def served(bundle: Bundle) -> Iterator[Served]:
    yield from serve(bundle, upstream=FakeUpstream(any_answer), recommender=Careful())


def test_each_prompt_has_its_own_weights_and_the_engine_is_asked_once(served: Served) -> None:
    response = served.post("/v1/completions", {"prompt": ["once <W1>", "a knife"], "n": 2, "seed": 1})
    (sent,) = served.upstream.bodies
    assert sent["prompt"] == ["once <\u2060W1>" + CONTEXTS[0], "a knife" + CONTEXTS[1]]
    assert (sent["n"], sent["seed"], served.recommender.texts) == (2, 1, ["once <W1>", "a knife"])
    preference = response.json()["preference"]
    assert [each["weights"] for each in preference["prompts"]] == [RECOMMENDED, SAFE]
    assert all(each["applied"] and each["source"] == "orchestrator" for each in preference["prompts"])
    assert "X-Preference-Weights" not in response.headers
    assert response.headers["X-Preference-Source"] == "orchestrator"
    assert response.headers["X-Preference-Bundle"] == served.bundle.revision


def test_weights_of_the_request_are_those_of_every_prompt(served: Served) -> None:
    body = {"prompt": ["once", "a knife"], "preference_weights": SAFE, "stream": True}
    response = served.post("/v1/completions", body)
    preference = json.loads(response.text.partition("\n\n")[0].removeprefix("data: "))["preference"]
    assert [each["weights"] for each in preference["prompts"]] == [SAFE, SAFE]
    assert response.headers["X-Preference-Weights"] == "helpful=0.10,harmless=0.80,humor=0.10"
    assert served.upstream.bodies[0]["prompt"] == ["once" + CONTEXTS[1], "a knife" + CONTEXTS[1]]


def test_a_list_of_one_prompt_is_that_prompt(served: Served) -> None:
    one, listed = (served.post("/v1/completions", {"prompt": prompt}) for prompt in ("once", ["once"]))
    assert one.content == listed.content
    first, second = ({**sent, "request_id": ""} for sent in served.upstream.bodies)
    assert first == second


@pytest.mark.parametrize(
    ("body", "param", "word"),
    [
        ({"prompt": []}, "prompt", "not empty"),
        ({"prompt": ["x", ""]}, "prompt[1]", "not empty"),
        ({"prompt": ["x", {}]}, "prompt[1]", "not empty"),
        ({"prompt": [1, 2]}, "prompt", "token ids are not served"),
        ({"prompt": [[1, 2], [3]]}, "prompt", "token ids are not served"),
        ({"prompt": ["x"] * 33}, "prompt", "at most 32 answers"),
        ({"prompt": ["x"] * 3, "n": 11}, "prompt", "at most 32 answers"),
    ],
)
def test_other_lists_are_refused_in_words(
    served: Served, body: dict[str, object], param: str, word: str
) -> None:
    error = error_of(served.post("/v1/completions", body), 400)
    assert (error["param"], word in error["message"]) == (param, True), error
    assert served.upstream.bodies == []


def test_prompts_of_different_members_cannot_be_answered_in_one_request(bundle: Bundle) -> None:
    ends = {name: dict.fromkeys(bundle.names, 0.0) | {name: 1.0} for name in bundle.names}
    members = tuple(Member(name=name, weights=weights) for name, weights in ends.items())
    conditioning = MembersConditioning(members=members, rank=4)
    upstream = FakeUpstream(any_answer, tokens=lambda _weights: [], members=bundle.names)
    for served in serve(bundle, upstream=upstream, conditioning=conditioning, recommender=Careful()):
        error = error_of(served.post("/v1/completions", {"prompt": ["once", "a knife"]}), 400)
        assert (error["param"], "members" in error["message"]) == ("prompt", True)
        response = served.post("/v1/completions", {"prompt": ["a knife", "two knives, a knife"]})
        assert [each["member"]["name"] for each in response.json()["preference"]["prompts"]] == [
            "harmless"
        ] * 2
        assert upstream.bodies[-1]["model"] == "harmless"
