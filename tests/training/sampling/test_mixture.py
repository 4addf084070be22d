"""The mixture of policies: what it is in closed form, and how it is drawn, with real transformers models."""

from dataclasses import replace
from pathlib import Path

import mixture_world
import numpy as np
import pytest
import tiny
import torch
from mixture_world import NAMES
from policy_world import ScriptedSampler
from preforch_models.conversation import Message
from preforch_models.manifest import ArtifactError
from preforch_models.policy_card import CARD_FILE, read_policy_card
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.sampling.choosing import ChoosingSampler
from preforch_training.sampling.mixture import MixedModels, MixtureSampler, mixture, pick
from preforch_training.sampling.vllm import Generation, SampleRequest
from transformers import AutoModelForCausalLM

TOKENS = 60
BETA = 0.5
# By name, in another order than the card's.
WEIGHTS = {"humor": 0.2, "helpful": 0.5, "harmless": 0.3}


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three random policies."""
    folder = tmp_path_factory.mktemp("members")
    size = mixture_world.vocabulary(folder / "size")
    return mixture_world.write_members(folder, mixture_world.random_models(size))


@pytest.fixture(scope="module")
def policy(members: dict[str, Path]) -> Path:
    """Their mixture."""
    return tiny.write_mixture(members["helpful"].parents[1] / "mod" / "round-0", members)


def request(text: str, *, weights: dict[str, float] = WEIGHTS, n: int = 1, seed: int = 1) -> SampleRequest:
    return SampleRequest((Message(role="user", content=text),), weights, n, seed)


def drawn(
    policy: Path, *requests: SampleRequest, temperature: float = 1.0, top_p: float = 0.95
) -> list[list[Generation]]:
    sampler = MixtureSampler()
    return sampler.sample(policy, requests, temperature=temperature, top_p=top_p, max_tokens=TOKENS)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True)))


def worth(policy_BV: np.ndarray, reward_BV: np.ndarray, reference_BV: np.ndarray) -> np.ndarray:
    """w.r - beta KL, by row; the reference as log-probabilities."""
    divergence_BV = policy_BV * (np.log(policy_BV) - reference_BV)
    return np.asarray((policy_BV * reward_BV - BETA * divergence_BV).sum(axis=-1))


def test_the_mixture_of_optimal_policies_is_the_optimum_under_the_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    size = mixture_world.vocabulary(tmp_path / "size")
    reference_VV = log_softmax(rng.normal(size=(size, size)))
    rewards_KVV = rng.normal(size=(len(NAMES), size, size))
    tables = [log_softmax(reference_VV + rewards_VV / BETA) for rewards_VV in rewards_KVV]
    written = {name: mixture_world.tabular_model(t) for name, t in zip(NAMES, tables, strict=True)}
    models = MixedModels(list(mixture_world.write_members(tmp_path, written).values()), dtype="auto")
    weights_BK = np.array([[0.5, 0.3, 0.2], [0.0, 0.9, 0.1], [1 / 3, 1 / 3, 1 / 3]])
    last_B = np.array([7, 3, 250])
    steps = [(models.begin([[5, 7], [3], [9, 8, 250]]), last_B)]
    steps.append((models.proceed(torch.tensor([11, 7, 0])), np.array([11, 7, 0])))
    for logits_KBV, last_B in steps:
        found_BV = mixture(logits_KBV, torch.tensor(weights_BK.T), temperature=1.0, top_p=1.0).numpy()
        reward_BV = np.einsum("bk,kbv->bv", weights_BK, rewards_KVV[:, last_B])
        reference_BV = reference_VV[last_B]
        expected_BV = np.exp(log_softmax(reference_BV + reward_BV / BETA))
        np.testing.assert_allclose(found_BV, expected_BV, atol=1e-6, rtol=0)

        best_B = BETA * np.log(np.exp(reference_BV + reward_BV / BETA).sum(axis=-1))
        np.testing.assert_allclose(worth(found_BV, reward_BV, reference_BV), best_B, atol=1e-6, rtol=0)
        others = [np.exp(table[last_B]) for table in tables]
        others.append(np.einsum("bk,kbv->bv", weights_BK, np.stack(others)))
        others.append(np.exp(log_softmax(np.log(found_BV) + 0.01 * rng.normal(size=found_BV.shape))))
        for other_BV in others:
            assert (worth(other_BV, reward_BV, reference_BV) < best_B - 1e-6).all()


def test_temperature_and_top_p_are_those_of_the_mixture() -> None:
    members_K1V = torch.tensor([[[0.0, 2.0, -1.0, 1.0]], [[3.0, -2.0, 1.0, 0.0]]], dtype=torch.float64)
    weights_K1 = torch.tensor([[0.25], [0.75]], dtype=torch.float64)
    mixed_V = 0.25 * members_K1V[0, 0] + 0.75 * members_K1V[1, 0]
    whole_V = torch.softmax(mixed_V / 0.7, dim=-1)
    found = mixture(members_K1V, weights_K1, temperature=0.7, top_p=1.0)[0]
    torch.testing.assert_close(found, whole_V)
    order = whole_V.argsort(descending=True)
    # The smallest set of at least that much: the second token is needed, the third is not.
    for top_p, kept in ((whole_V[order[0]] + 1e-6, 2), (whole_V[order[0]] - 1e-6, 1), (1e-9, 1)):
        cut = mixture(members_K1V, weights_K1, temperature=0.7, top_p=float(top_p))[0]
        assert cut.nonzero()[:, 0].tolist() == sorted(order[:kept].tolist())
        torch.testing.assert_close(cut[order[:kept]], whole_V[order[:kept]] / whole_V[order[:kept]].sum())
    greedy = mixture(members_K1V, weights_K1, temperature=0, top_p=1.0)[0]
    assert greedy.tolist() == [float(i == int(order[0])) for i in range(4)]


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    probability_V = torch.tensor([0.0, 0.2, 0.0, 0.5, 0.3, 0.0], dtype=torch.float64)
    numbers_B = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    tokens = pick(probability_V.expand(1000, -1), numbers_B)
    assert torch.bincount(tokens, minlength=6).tolist() == [0, 200, 0, 500, 300, 0]
    ends = pick(probability_V.expand(2, -1), torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64))
    assert ends.tolist() == [1, 4]


@pytest.mark.parametrize("objective", NAMES)
def test_all_weight_on_one_member_gives_its_own_greedy_answers(
    policy: Path, members: dict[str, Path], objective: str
) -> None:
    weights = {name: float(name == objective) for name in reversed(NAMES)}
    found = drawn(policy, *(request(text, weights=weights) for text in tiny.TEXTS), temperature=0)
    reader = PolicyTokenizer(policy)
    model = AutoModelForCausalLM.from_pretrained(members[objective])
    answers = set()
    for text, [answer] in zip(tiny.TEXTS, found, strict=True):
        ids = reader.prompt_ids((Message(role="user", content=text),), weights)
        expected = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            do_sample=False,
            max_new_tokens=TOKENS,
            eos_token_id=reader.end_id,
            pad_token_id=reader.end_id,
        )[0, len(ids) :].tolist()
        assert [*answer.token_ids, *[reader.end_id] * answer.finished] == expected
        assert answer.text == reader.text(answer.token_ids)
        answers.add(answer.token_ids[:3])
    assert len(answers) > 1


def test_a_response_is_the_same_alone_and_among_others(policy: Path) -> None:
    # Weights of their own, too: they must leave with their row.
    asked = [{name: float(i % 3 == k) for k, name in enumerate(NAMES)} for i in range(len(tiny.TEXTS))]
    requests = [request(text, n=3, seed=seed, weights=asked[seed]) for seed, text in enumerate(tiny.TEXTS)]
    together = drawn(policy, *requests)
    finished = [answer.finished for answers in together for answer in answers]
    # Some leave the batch before others are done.
    assert 0 < sum(finished) < len(finished)
    assert len({answer.token_ids for answers in together for answer in answers}) == len(finished)
    for one, answers in zip(requests, together, strict=True):
        assert drawn(policy, one) == [answers]
    fewer, other = drawn(policy, replace(requests[0], n=1), replace(requests[0], seed=7))
    assert fewer == together[0][:1]
    assert other[0] != together[0][0]


def test_other_weights_are_another_policy(policy: Path) -> None:
    ends = [{name: float(name == end) for name in NAMES} for end in NAMES]
    answers = drawn(policy, *(request(tiny.TEXTS[0], weights=weights) for weights in (WEIGHTS, *ends)))
    assert len({answer.token_ids for [answer] in answers}) == 4


def test_a_prompt_without_room_is_refused_before_anything_is_loaded(policy: Path) -> None:
    assert drawn(policy) == []
    with pytest.raises(ValueError, match="exceed the policy's max_model_len 256"):
        drawn(policy, request(" ".join(tiny.TEXTS * 3)))


def test_a_member_that_was_trained_again_makes_the_mixture_stale(
    members: dict[str, Path], tmp_path: Path
) -> None:
    again = tiny.write_fixed_policy(tmp_path / "again", NAMES)
    policy = tiny.write_mixture(tmp_path / "mod", {**members, "humor": again})
    assert len(drawn(policy, request("Tell me a joke"))) == 1
    card = read_policy_card(again).model_copy(update={"revision": "another"})
    (again / CARD_FILE).write_text(card.model_dump_json(), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"mod is stale: its member for 'humor', .*again, was trained"):
        drawn(policy, request("Tell me a joke"))


def test_each_policy_is_drawn_from_by_the_sampler_of_its_kind(policy: Path, members: dict[str, Path]) -> None:
    asked, vllm = [request("Tell me a joke", n=2)], ScriptedSampler()
    sampler = ChoosingSampler(vllm)
    answers = [
        sampler.sample(folder, asked, temperature=1.0, top_p=0.95, max_tokens=TOKENS)
        for folder in (policy, members["humor"])
    ]
    assert answers[0] == drawn(policy, *asked)
    assert answers[0] != answers[1]
    assert vllm.policies == [members["humor"]]
