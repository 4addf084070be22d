"""The demo world is deterministic, its splits are disjoint, its truth is known, its objectives conflict."""

import re
from itertools import combinations

import numpy as np
import pytest
from preforch_training.demo.assistant.families import FAMILIES, OBJECTIVES
from preforch_training.demo.assistant.prompts import ADJECTIVES, NOUNS, read_prompt, topics
from preforch_training.demo.assistant.responses import assemble, draw_response
from preforch_training.demo.assistant.world import ASSISTANT
from preforch_training.demo.world import DemoData, DemoPrompt
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

SPLITS = ("train", "validation", "test_phrasing", "test_topic", "test_both")
HOW_TO = "How do I clean a red kettle?"
RISKY = "How do I steal a red kettle from a shop?"


@pytest.fixture(scope="module")
def data() -> DemoData:
    return ASSISTANT.generate(seed=0, train_prompts=700, validation_prompts=100, test_prompts=150)


def in_split(data: DemoData, split: str) -> list[DemoPrompt]:
    return [prompt for prompt in data.prompts if prompt.split == split]


def dominant(prompt: DemoPrompt) -> str:
    return max(prompt.true_weights, key=prompt.true_weights.__getitem__)


def utility(prompt: DemoPrompt, response: str) -> float:
    return sum(
        prompt.true_weights[name] * value
        for name, value in ASSISTANT.true_rewards(prompt.text, response).items()
    )


def test_the_same_seed_gives_the_same_data_and_another_seed_does_not() -> None:
    first, again, other = (
        ASSISTANT.generate(seed=seed, train_prompts=40, validation_prompts=10, test_prompts=10)
        for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


def test_training_data_does_not_depend_on_the_size_of_the_other_splits() -> None:
    small = ASSISTANT.generate(seed=3, train_prompts=40, validation_prompts=5, test_prompts=5)
    large = ASSISTANT.generate(seed=3, train_prompts=40, validation_prompts=20, test_prompts=9)
    assert in_split(small, "train") == in_split(large, "train")
    assert [p for p in small.pairs if p.split == "train"] == [p for p in large.pairs if p.split == "train"]


def test_counts_are_as_asked_and_no_text_is_in_two_splits(data: DemoData) -> None:
    assert [len(in_split(data, split)) for split in SPLITS] == [700, 100, 150, 150, 150]
    assert len({prompt.text for prompt in data.prompts}) == len(data.prompts)
    assert len({prompt.id for prompt in data.prompts}) == len(data.prompts)
    assert len({pair.id for pair in data.pairs}) == len(data.pairs)


@pytest.mark.parametrize(
    ("split", "new_phrasing", "new_topic"),
    [
        ("validation", False, False),
        ("test_phrasing", True, False),
        ("test_topic", False, True),
        ("test_both", True, True),
    ],
)
def test_each_split_holds_out_what_it_says(
    data: DemoData, split: str, *, new_phrasing: bool, new_topic: bool
) -> None:
    known = {phrasing for family in FAMILIES for phrasing in family.phrasings}
    for prompt in in_split(data, split):
        assert (read_prompt(prompt.text).phrasing not in known) == new_phrasing
        assert (prompt.topic in topics(held_out=True)) == new_topic


def test_held_out_topics_are_new_combinations_of_words_seen_in_training() -> None:
    training, held_out = topics(held_out=False), topics(held_out=True)
    assert not set(training) & set(held_out)
    assert {word for topic in training for word in topic.split()} == {*ADJECTIVES, *NOUNS}


def test_families_have_enough_distinct_phrasings() -> None:
    texts = [text for family in FAMILIES for text in family.phrasings + family.held_out_phrasings]
    assert len(set(texts)) == len(texts)
    assert all(text.count("{t}") == 1 for text in texts)
    assert all(len(family.phrasings) >= 15 and len(family.held_out_phrasings) >= 5 for family in FAMILIES)


def test_true_weights_come_from_the_text_and_have_a_clear_first(data: DemoData) -> None:
    for prompt in data.prompts:
        assert ASSISTANT.true_weights(prompt.text) == prompt.true_weights
        ordered = sorted(prompt.true_weights.values())
        assert sum(ordered) == pytest.approx(1)
        assert ordered[0] > 0
        assert ordered[-1] - ordered[-2] >= 0.2


def test_mean_weights_are_far_from_uniform_and_every_objective_leads_somewhere(data: DemoData) -> None:
    mean = [np.mean([prompt.true_weights[name] for prompt in in_split(data, "train")]) for name in OBJECTIVES]
    assert np.abs(np.array(mean) - 1 / 3).sum() > 0.2
    assert {dominant(prompt) for prompt in data.prompts} == set(OBJECTIVES)


def test_a_world_of_two_objectives_wishes_for_nothing_else(data: DemoData) -> None:
    names = ("helpful", "harmless")
    two = ASSISTANT.generate(seed=0, train_prompts=60, validation_prompts=8, test_prompts=8, objectives=names)
    assert {pair.objective for pair in two.pairs} == {*names, "overall"}
    prompts = {prompt.id: prompt for prompt in two.prompts}
    for prompt in two.prompts:
        three = ASSISTANT.true_weights(prompt.text)
        assert sum(prompt.true_weights.values()) == pytest.approx(1)
        ratio = prompt.true_weights["helpful"] / prompt.true_weights["harmless"]
        assert ratio == pytest.approx(three["helpful"] / three["harmless"])
    # Without noise what is chosen is the best by these two: a joke that a joke was asked for wins nothing.
    clean = [pair for pair in two.pairs if pair.objective == "overall" and pair.split.startswith("test")]
    margins = [
        sum(
            weight
            * (
                ASSISTANT.true_rewards(asked.text, pair.chosen)[name]
                - ASSISTANT.true_rewards(asked.text, pair.rejected)[name]
            )
            for name, weight in asked.true_weights.items()
        )
        for pair in clean
        for asked in [prompts[pair.prompt_id]]
    ]
    assert len(margins) > 20
    assert min(margins) > 0
    turned = ASSISTANT.generate(
        seed=0, train_prompts=60, validation_prompts=8, test_prompts=8, objectives=names[::-1]
    )
    assert turned == two


def test_an_objective_that_the_world_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\['brevity'\] are none of this world's, which are \['helpful'"):
        ASSISTANT.generate(
            seed=0, train_prompts=10, validation_prompts=5, test_prompts=5, objectives=("helpful", "brevity")
        )


def test_parse_inverts_assembly() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        counts = {
            kind: int(rng.integers(0, 2)) for kind in ("on", "off", "caution", "refusal", "joke", "filler")
        }
        counts["on"] = max(counts["on"], 1)
        parts = ASSISTANT.parse(HOW_TO, assemble(rng, "red kettle", counts))
        read = (
            parts.on_topic_steps,
            parts.off_topic_steps,
            parts.cautions,
            parts.refusals,
            parts.jokes,
            parts.fillers,
        )
        assert read == tuple(counts.values())
        assert parts.unknown == 0


def test_parse_forgives_white_space() -> None:
    parts = ASSISTANT.parse(
        HOW_TO, "  Clean the red  kettle with warm water .\n Haha , the blue tent laughs at its own jokes !"
    )
    assert (parts.on_topic_steps, parts.jokes, parts.unknown) == (1, 1, 0)


@pytest.mark.parametrize(
    "addition",
    [
        "Kettle kettle the warm.",
        "Clean the red kettle with",
        "Put the red kettle on a flat table.",
        "...",
        "Clean the.",
    ],
)
def test_garbled_cut_and_repeated_sentences_cost_in_every_objective(addition: str) -> None:
    response = "Put the red kettle on a flat table. Please be careful and stay safe. Let me think about it."
    assert ASSISTANT.parse(HOW_TO, f"{response} {addition}").unknown == 1
    before, after = (
        ASSISTANT.true_rewards(HOW_TO, response),
        ASSISTANT.true_rewards(HOW_TO, f"{response} {addition}"),
    )
    assert all(after[name] < before[name] - 0.2 for name in OBJECTIVES)


def test_an_empty_response_costs_and_a_seventh_sentence_does_not_pay() -> None:
    filler = ASSISTANT.true_rewards(HOW_TO, "Let me think about it.")
    assert all(ASSISTANT.true_rewards(HOW_TO, "")[name] < filler[name] for name in OBJECTIVES)
    rng = np.random.default_rng(0)
    counts = {"on": 6, "off": 0, "caution": 0, "refusal": 0, "joke": 0, "filler": 0}
    six = assemble(rng, "red kettle", counts)
    seven = f"{six} Haha, the red kettle laughs at its own jokes!"
    assert ASSISTANT.parse(HOW_TO, seven).jokes == 0
    assert ASSISTANT.true_rewards(HOW_TO, seven)["humor"] < ASSISTANT.true_rewards(HOW_TO, six)["humor"]


def test_objectives_conflict_as_described() -> None:
    step, other = "Check every part of the red kettle.", "Check every part of the blue tent."
    caution, refusal = "Please be careful and stay safe.", "I will not answer this."
    joke, filler = "A monkey sold me this joke for peanuts!", "Let me think about it."
    risky = {
        text: ASSISTANT.true_rewards(RISKY, text) for text in (step, other, caution, refusal, joke, filler)
    }
    benign = {text: ASSISTANT.true_rewards(HOW_TO, text) for text in (step, caution, refusal, joke, filler)}
    assert (
        risky[step]["helpful"]
        > risky[filler]["helpful"]
        > risky[other]["helpful"]
        > risky[refusal]["helpful"]
    )
    assert (
        risky[refusal]["harmless"]
        > risky[caution]["harmless"]
        > risky[filler]["harmless"]
        > risky[step]["harmless"]
    )
    assert risky[joke]["humor"] > risky[filler]["humor"] > risky[refusal]["humor"]
    assert risky[joke]["harmless"] < risky[filler]["harmless"]
    assert benign[joke]["harmless"] == benign[filler]["harmless"]
    assert benign[joke]["helpful"] < benign[filler]["helpful"]
    assert benign[caution]["harmless"] > benign[refusal]["harmless"] > benign[filler]["harmless"]


def test_a_caution_makes_up_for_steps_unless_the_request_is_forbidden() -> None:
    step, caution = "Check every part of the red kettle.", "Please be careful and stay safe."
    benign = {
        text: ASSISTANT.true_rewards(HOW_TO, text)["harmless"]
        for text in (step, caution, f"{step} {caution}")
    }
    risky = {text: ASSISTANT.true_rewards(RISKY, text)["harmless"] for text in (caution, f"{step} {caution}")}
    assert benign[f"{step} {caution}"] == benign[caution] > benign[step]
    assert risky[f"{step} {caution}"] < risky[caution]


def test_rewards_have_unit_spread_and_are_not_the_same_thing(data: DemoData) -> None:
    rng = np.random.default_rng(0)
    rewards = np.array(
        [
            list(ASSISTANT.true_rewards(prompt.text, draw_response(rng, prompt.topic)).values())
            for prompt in in_split(data, "train")
            for _ in range(4)
        ]
    )
    assert np.abs(rewards.mean(0)).max() < 0.15
    assert np.abs(rewards.std(0) - 1).max() < 0.15
    assert all(
        abs(np.corrcoef(rewards[:, a], rewards[:, b])[0, 1]) < 0.7 for a, b in combinations(range(3), 2)
    )


def test_knowing_the_prompt_beats_every_constant(data: DemoData) -> None:
    rng = np.random.default_rng(0)
    prompts = in_split(data, "train")[:300]
    rewards = np.array(
        [
            [
                list(ASSISTANT.true_rewards(prompt.text, draw_response(rng, prompt.topic)).values())
                for _ in range(16)
            ]
            for prompt in prompts
        ]
    )
    truth = np.einsum(
        "nck,nk->nc", rewards, np.array([list(prompt.true_weights.values()) for prompt in prompts])
    )
    grid = [(a / 10, b / 10, 1 - a / 10 - b / 10) for a in range(11) for b in range(11 - a)]
    constants = [truth[np.arange(len(prompts)), (rewards @ np.array(w)).argmax(1)].mean() for w in grid]
    assert truth.max(1).mean() - max(constants) > 0.5


def test_noisy_pairs_mostly_follow_the_truth_and_test_pairs_always(data: DemoData) -> None:
    prompts = {prompt.id: prompt for prompt in data.prompts}
    agree: dict[tuple[str, bool], list[bool]] = {}
    for pair in data.pairs:
        prompt = prompts[pair.prompt_id]
        if pair.objective == "overall":
            margin = utility(prompt, pair.chosen) - utility(prompt, pair.rejected)
        else:
            chosen, rejected = (
                ASSISTANT.true_rewards(prompt.text, text) for text in (pair.chosen, pair.rejected)
            )
            margin = chosen[pair.objective] - rejected[pair.objective]
        assert pair.split == prompt.split
        agree.setdefault((pair.objective, pair.split.startswith("test")), []).append(margin > 0)
    for objective in (*OBJECTIVES, "overall"):
        assert all(agree[objective, True])
        assert 0.88 < np.mean(agree[objective, False]) < 0.99


def test_vocabulary_and_responses_are_small(data: DemoData) -> None:
    responses = {text for pair in data.pairs for text in (pair.chosen, pair.rejected)}
    words = [
        re.findall(r"\w+|[^\w\s]", text) for text in [*responses, *(prompt.text for prompt in data.prompts)]
    ]
    assert len({word for text in words for word in text}) <= 800
    assert max(len(text) for text in words) <= 60
    assert all(ASSISTANT.parse(HOW_TO, text).unknown == 0 for text in responses)


def test_counting_words_does_not_name_the_objective_of_held_out_phrasings(data: DemoData) -> None:
    vectors = TfidfVectorizer(ngram_range=(1, 2))
    train, test = in_split(data, "train"), in_split(data, "test_phrasing")
    features = vectors.fit_transform([prompt.text for prompt in train])
    model = LogisticRegression(C=10, max_iter=1000).fit(features, [dominant(prompt) for prompt in train])
    named = model.predict(vectors.transform([prompt.text for prompt in test]))
    accuracy = np.mean(named == np.array([dominant(prompt) for prompt in test]))
    assert accuracy <= 0.85


def test_texts_of_another_world_are_refused_by_name() -> None:
    for text in (
        "What is love?",
        "How do I clean a red sofa?",
        "How do I clean a red kettle in a blue tent?",
        "",
    ):
        for read in (
            ASSISTANT.true_weights,
            lambda prompt: ASSISTANT.parse(prompt, "Let me think about it."),
        ):
            with pytest.raises(ValueError, match=re.escape(repr(text))):
                read(text)


def test_more_prompts_than_texts_is_an_error_that_names_the_split() -> None:
    with pytest.raises(ValueError, match="test_both"):
        ASSISTANT.generate(seed=0, train_prompts=1, validation_prompts=1, test_prompts=2000)


def test_there_are_texts_for_the_largest_run() -> None:
    per_family = len(topics(held_out=False)) * min(len(family.phrasings) for family in FAMILIES)
    assert 7000 * max(family.share for family in FAMILIES) < per_family
    assert sum(family.share for family in FAMILIES) == pytest.approx(1)


def test_examples_for_showing_are_held_out_and_of_different_families() -> None:
    examples = ASSISTANT.held_out_examples(2 * len(FAMILIES))
    assert len(set(examples)) == len(examples)
    assert {read_prompt(text).family.name for text in examples[: len(FAMILIES)]} == {f.name for f in FAMILIES}
    assert all(read_prompt(text).topic in topics(held_out=True) for text in examples)
    with pytest.raises(ValueError, match="1000"):
        ASSISTANT.held_out_examples(1000)


def test_it_is_the_world_that_docs_results_was_measured_on() -> None:
    assert ASSISTANT.hash() == "4040d29d275db493f0a4ea017854c504069021e228e1134424acda3de305c2d8"
