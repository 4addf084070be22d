"""Rewordings of a prompt, and the part of the report about how far the weights move under them."""

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from preforch_models.conversation import Message
from preforch_training.demo.assistant.world import ASSISTANT
from preforch_training.demo.truth import WorldTruth
from preforch_training.records import Prompt
from preforch_training.report.facts import Facts
from preforch_training.report.records import Stability
from preforch_training.report.robustness.rewordings import (
    SURFACE,
    lower_case,
    no_punctuation,
    polite_frame,
    reword,
    typos,
)
from preforch_training.report.robustness.stability import (
    PHRASING,
    PROMPTS,
    UNRELATED,
    Weigh,
    report_stability,
)
from report_world import BOOTSTRAP, NAMES, make_facts

RNG = random.Random(0)


def test_only_the_newest_user_turn_is_reworded() -> None:
    turns = [
        ("system", "Be KIND."),
        ("user", "Hi!"),
        ("assistant", "Hello."),
        ("user", "WHY, so?"),
        ("tool", "X."),
    ]
    prompt = Prompt(id="p", messages=tuple(Message(role=r, content=c) for r, c in turns), split="validation")
    assert reword(prompt, lower_case, seed=0) == prompt.text.replace("WHY", "why")
    assert reword(prompt, no_punctuation, seed=0) == prompt.text.replace("WHY, so?", "WHY so")


def test_each_rule_does_what_its_name_says() -> None:
    assert (
        no_punctuation('Don\u2019t – "well-known", e.g. नमस्ते, 3 + 4?', RNG)
        == "Dont well known e g नमस्ते 3 + 4"
    )
    assert no_punctuation("???", RNG) == "???"
    assert polite_frame("Why?", RNG) == "Could you please help me with this: Why?"


def test_typos_swap_neighbours_inside_a_few_words_and_are_the_same_for_one_seed() -> None:
    text = " ".join(["camel lantern 1234 of"] * 15)
    prompt = Prompt(id="p", messages=(Message(role="user", content=text),), split="test")
    changed = reword(prompt, typos, seed=1)
    assert changed == reword(prompt, typos, seed=1) != reword(prompt, typos, seed=2)
    pairs = [(a, b) for a, b in zip(text.split(), changed.split(), strict=True) if a != b]
    assert len(pairs) == 3
    for before, after in pairs:
        places = [i for i in range(len(before)) if before[i] != after[i]]
        assert (len(places), before[0], sorted(before)) == (2, after[0], sorted(after))
        assert places[1] == places[0] + 1
    assert typos("a 12 oooo", RNG) == "a 12 oooo"


def by_kind(
    facts: Facts, f_PK: np.ndarray, weigh: Weigh, truth: WorldTruth | None = None
) -> dict[str, Stability]:
    return {entry.kind: entry for entry in report_stability(facts, f_PK, weigh, truth, bootstrap=BOOTSTRAP)}


def weights_by_family(texts: Sequence[str]) -> np.ndarray:
    """All on the objective of the first word, which typos spoil and a frame moves;
    equal where it is not known."""
    places = {"how-to": 0, "risky": 1, "wish": 2}
    return np.stack(
        [np.eye(3)[places[w]] if (w := t.split()[0]) in places else np.full(3, 1 / 3) for t in texts]
    )


def test_distances_are_those_between_the_weights_of_both_texts() -> None:
    facts = make_facts()
    f_PK = weights_by_family([prompt.text for prompt in facts.prompts])
    found = by_kind(facts, f_PK, weights_by_family)
    # "how-to number 3" and the like have no capital letter, and punctuation in one family of three only.
    assert list(found) == ["no punctuation", "polite frame", "typos", UNRELATED]
    assert found["polite frame"].distance.groups == 180 < PROMPTS
    assert found["polite frame"].distance.value == pytest.approx(2 / 3)
    # argmax of equal weights is the first objective.
    assert found["polite frame"].same_top.value == pytest.approx(1 / 3)
    assert found["no punctuation"].distance.groups == 60
    assert found["no punctuation"].distance.value == pytest.approx(2 / 3)
    assert 0 < found["typos"].distance.low < found["typos"].distance.value < 2 / 3
    # 180 prompts in three families of 60: 120 of the 179 others are of another one.
    assert found[UNRELATED].distance.value == pytest.approx(120 / 179)
    assert found[UNRELATED].same_top.value == pytest.approx(59 / 179)
    assert found[UNRELATED].distance.low < 120 / 179 < found[UNRELATED].distance.high
    true = found[UNRELATED].true_distance
    assert true is not None
    assert true.value == pytest.approx(0.7 * 120 / 179)


def test_many_prompts_are_drawn_from_and_weights_that_do_not_vary_do_not_move() -> None:
    facts = make_facts()
    many = [p.model_copy(update={"id": f"{p.id}-{i}"}) for p in facts.prompts for i in range(2)]
    facts = replace(facts, prompts=many, true_PK=None)
    found = by_kind(facts, np.full((len(many), 3), 1 / 3), lambda texts: np.full((len(texts), 3), 1 / 3))
    assert found["polite frame"].distance.groups == found[UNRELATED].distance.groups == PROMPTS
    for entry in found.values():
        assert (entry.distance.high, entry.same_top.low, entry.true_distance) == (0, 1, None)


def test_the_demo_world_adds_another_phrasing_with_the_distance_of_their_true_weights() -> None:
    truth = WorldTruth(ASSISTANT, NAMES)
    texts = ASSISTANT.held_out_examples(12)
    prompts = [
        Prompt(id=str(i), messages=(Message(role="user", content=text),), split="test_both")
        for i, text in enumerate(texts)
    ]
    for text in texts:
        before, after = ASSISTANT.read_prompt(text), ASSISTANT.read_prompt(truth.rephrase(text, RNG))
        assert (before.family, before.topic) == (after.family, after.topic)
        assert before.phrasing != after.phrasing in before.family.held_out_phrasings

    def weigh(texts: Sequence[str]) -> np.ndarray:
        """w° of what the demo world can read."""
        framed = SURFACE["polite frame"]("", RNG)
        known = [text.startswith(framed) or text not in rephrased for text in texts]
        return np.stack(
            [np.ones(3) / 3 if no else truth.weights(t) for no, t in zip(known, texts, strict=True)]
        )

    rephrased = {reword(prompt, truth.rephrase, seed=BOOTSTRAP.seed) for prompt in prompts}
    true_PK, none = np.stack([truth.weights(text) for text in texts]), np.zeros(0)
    facts = Facts(
        NAMES, prompts, prompt_N=none, margin_NK=none, target_NK=none, true_PK=true_PK, family_P=None
    )
    found = by_kind(facts, true_PK, weigh, truth)
    assert list(found) == [*SURFACE, PHRASING, UNRELATED]
    assert found[PHRASING].distance == found[PHRASING].true_distance
    assert 0 < found[PHRASING].distance.high < 0.1 < found[UNRELATED].distance.value
    assert found[UNRELATED].distance == found[UNRELATED].true_distance
    assert found["typos"].true_distance is None


def test_one_prompt_alone_has_no_unrelated_one() -> None:
    facts = make_facts()
    facts = replace(facts, prompts=facts.prompts[:121])
    assert UNRELATED not in by_kind(
        facts, np.full((121, 3), 1 / 3), lambda texts: np.full((len(texts), 3), 1 / 3)
    )
