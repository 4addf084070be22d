"""The tutor world is frozen, its splits are disjoint, its truth is known, its objectives pull apart."""

import re
from itertools import combinations

import numpy as np
import pytest
from preforch_training.demo.tutor.checker import check, check_response
from preforch_training.demo.tutor.families import FAMILIES, OBJECTIVES
from preforch_training.demo.tutor.problems import HELD_OUT_STARTS, STARTS, problems, read_problem
from preforch_training.demo.tutor.solutions import count_parts, draw_solution
from preforch_training.demo.tutor.world import TUTOR
from preforch_training.demo.world import DemoData, DemoPrompt
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

SPLITS = ("train", "validation", "test_phrasing", "test_topic", "test_both")
STORY = "Mia has 12 apples. Mia finds 6 more. A dog runs off with 4 of them. How many apples are there now?"
DRILL, CHILD, QUICK = (
    f"Next one of the drill: {STORY}",
    f"How would you tell this to a little girl? {STORY}",
    f"{STORY} Just the result please.",
)
BARE = "12 + 6 = 18\n18 - 4 = 14\nAnswer: 14"
LIVELY = (
    "Psst, Mia has a secret about apples!\nHooray, more apples for Mia, so 12 + 6 = 18!\n"
    "Poof, and a few apples are gone: 18 - 4 = 14!\nHigh five, you tamed the apples!\nAnswer: 14"
)


@pytest.fixture(scope="module")
def data() -> DemoData:
    return TUTOR.generate(seed=0, train_prompts=400, validation_prompts=60, test_prompts=100)


@pytest.fixture(scope="module")
def drawn() -> list[tuple[str, str]]:
    """Problems and random solutions."""
    rng = np.random.default_rng(1)
    return [(text, draw_solution(rng, read_problem(text))) for text in problems("train")[:3000]]


def in_split(data: DemoData, split: str) -> list[DemoPrompt]:
    return [prompt for prompt in data.prompts if prompt.split == split]


def dominant(prompt: DemoPrompt) -> str:
    return max(prompt.true_weights, key=prompt.true_weights.__getitem__)


def test_the_world_is_frozen() -> None:
    assert TUTOR.hash() == "5ee0e23f7cccfeb38e529f1a64185cd5f906034cad3a0825785b743d75621c52"


def test_counts_are_as_asked_and_no_text_is_in_two_splits(data: DemoData) -> None:
    assert [len(in_split(data, split)) for split in SPLITS] == [400, 60, 100, 100, 100]
    assert len({prompt.text for prompt in data.prompts}) == len(data.prompts)


@pytest.mark.parametrize(
    ("split", "new_phrasing", "new_numbers"),
    [
        ("train", False, False),
        ("validation", False, False),
        ("test_phrasing", True, False),
        ("test_topic", False, True),
        ("test_both", True, True),
    ],
)
def test_each_split_holds_out_what_it_says(
    data: DemoData, split: str, *, new_phrasing: bool, new_numbers: bool
) -> None:
    known = {phrasing for family in FAMILIES for phrasing in family.phrasings}
    for prompt in in_split(data, split):
        said = TUTOR.read_prompt(prompt.text)
        assert (said.family.name, said.topic) == (prompt.family, prompt.topic)
        assert (said.phrasing not in known) == new_phrasing
        assert said.problem.start in (HELD_OUT_STARTS if new_numbers else STARTS)


def test_problems_of_test_splits_are_never_those_of_training() -> None:
    training = set(problems("train"))
    assert not set(STARTS) & set(HELD_OUT_STARTS)
    for split in ("test_phrasing", "test_topic", "test_both"):
        assert not training & set(problems(split))
    # Training passes through the numbers that no training problem starts from.
    values = {step.left for text in training for step in read_problem(text).steps[1:]}
    assert values >= set(HELD_OUT_STARTS)


def test_problems_are_read_as_they_are_told_and_stay_in_range() -> None:
    problem = read_problem(STORY)
    assert (problem.name, problem.things, problem.start) == ("Mia", "apples", 12)
    assert problem.operations == (("+", 6), ("-", 4))
    assert [str(step) for step in problem.steps] == ["12 + 6 = 18", "18 - 4 = 14"]
    for text in (*problems("train")[:500], *problems("test_both")[:500]):
        steps = read_problem(text).steps
        assert len(steps) in (2, 3)
        assert all(1 <= value <= 99 for step in steps for value in (step.left, step.result))


@pytest.mark.parametrize(
    "text",
    [
        "What is love?",
        "Quick check:",
        STORY,
        f"Please: {STORY}",
        QUICK.replace("Mia finds", "Ben finds"),
        QUICK.replace("finds 6 more", "finds many more"),
        QUICK.replace("Mia finds 6 more. A dog runs off with 4 of them. ", ""),
        f"Quick check: {STORY} {STORY}",
    ],
)
def test_texts_of_another_world_are_refused_by_name(text: str) -> None:
    for read in (TUTOR.true_weights, lambda prompt: TUTOR.true_rewards(prompt, BARE)):
        with pytest.raises(ValueError, match=re.escape(repr(text))):
            read(text)


def test_true_weights_come_from_the_text_and_have_a_clear_first(data: DemoData) -> None:
    for prompt in data.prompts:
        assert TUTOR.true_weights(prompt.text) == prompt.true_weights
        ordered = sorted(prompt.true_weights.values())
        assert sum(ordered) == pytest.approx(1)
        assert ordered[-1] - ordered[-2] >= 0.2
    mean = [np.mean([prompt.true_weights[name] for prompt in in_split(data, "train")]) for name in OBJECTIVES]
    assert np.abs(np.array(mean) - 1 / 3).sum() > 0.2
    assert {dominant(prompt) for prompt in data.prompts} == set(OBJECTIVES)


def test_prompts_call_for_different_tellings_of_one_problem() -> None:
    short = "Answer: 14"
    utility = {
        (prompt, text): sum(
            weight * TUTOR.true_rewards(prompt, text)[name]
            for name, weight in TUTOR.true_weights(prompt).items()
        )
        for prompt in (DRILL, CHILD, QUICK)
        for text in (BARE, LIVELY, short)
    }
    for prompt, best in ((DRILL, BARE), (CHILD, LIVELY), (QUICK, short)):
        others = {BARE, LIVELY, short} - {best}
        assert all(utility[prompt, best] > utility[prompt, other] + 0.1 for other in others), prompt


def test_lines_count_for_what_they_are() -> None:
    problem = read_problem(STORY)
    off_topic = LIVELY.replace("more apples for Mia", "more shells for Mia").replace("about apples", "on x")
    for text, counts in (
        (BARE, (0, 0, 0, 2, 0, 12)),
        (LIVELY, (4, 0, 0, 0, 0, 38)),
        (off_topic, (2, 1, 0, 0, 1, 38)),
        (
            "We read the task with care.\nBy the task this gives us 12 + 6 = 18.\nAnswer: 14",
            (0, 0, 1, 1, 0, 19),
        ),
        ("Answer: 14\n \nAnswer: 14", (0, 0, 0, 0, 1, 4)),
        (f"{BARE}\n{BARE}", (0, 0, 0, 2, 3, 24)),
        ("", (0, 0, 0, 0, 1, 0)),
    ):
        found = count_parts(problem, text)
        kinds = (found.lively, found.off_topic, found.dull, found.sober_steps, found.unknown, found.words)
        assert kinds == counts, text


@pytest.mark.parametrize(
    "addition", ["Apples apples the.", "12 + 6 = 18", "Hooray, more apples", "Answer: 3"]
)
def test_garbled_and_repeated_lines_cost_but_for_accuracy(addition: str) -> None:
    before = TUTOR.true_rewards(CHILD, BARE)
    after = TUTOR.true_rewards(CHILD, f"{addition}\n{BARE}")
    assert after["engagement"] <= before["engagement"] - 0.4
    assert after["brevity"] <= before["brevity"] - 0.4
    assert after["accuracy"] >= before["accuracy"] - 0.6
    assert TUTOR.true_rewards(QUICK, "")["brevity"] < TUTOR.true_rewards(QUICK, "Answer: 3")["brevity"]


def test_rewards_have_unit_spread_and_pull_apart(drawn: list[tuple[str, str]]) -> None:
    prompt = "Quick check: {}"
    rewards = np.array([list(TUTOR.true_rewards(prompt.format(x), y).values()) for x, y in drawn])
    assert np.abs(rewards.mean(0)).max() < 0.1
    assert np.abs(rewards.std(0) - 1).max() < 0.1
    correlation = np.corrcoef(rewards.T)
    accuracy, engagement, brevity = range(3)
    assert correlation[engagement, brevity] < -0.4
    assert correlation[engagement, accuracy] < -0.1
    assert all(abs(correlation[a, b]) < 0.7 for a, b in combinations(range(3), 2))


def test_lively_tellings_are_longer_and_slip_more(drawn: list[tuple[str, str]]) -> None:
    parts = [count_parts(read_problem(x), y) for x, y in drawn]
    lively = np.array([part.lively + part.off_topic for part in parts])
    steps = np.array([part.sober_steps + part.lively > 0 for part in parts])
    words = np.array([part.words for part in parts])
    checks = [check(read_problem(x), y) for x, y in drawn]
    right = np.array([found.solved and found.sound for found in checks])
    assert words[lively >= 3].mean() > words[lively == 0].mean() + 20
    assert right[(lively == 0) & steps].mean() > right[lively >= 3].mean() + 0.15
    assert right[lively >= 3].mean() > 0.3
    assert not any(part.unknown > 1 for part in parts)
    # Some go straight to the answer, and are right less often than those who show plain steps.
    assert 0.05 < (~steps).mean() < 0.25
    assert right[~steps].mean() < right[(lively == 0) & steps].mean() - 0.1


def test_what_is_chosen_is_what_the_prompt_calls_for(data: DemoData) -> None:
    prompts = {prompt.id: prompt for prompt in data.prompts}
    chosen = {p.prompt_id: p.chosen for p in data.pairs if p.objective == "overall" and p.split == "train"}
    found: dict[str, list[tuple[bool, int]]] = {}
    for key, response in chosen.items():
        solved = check_response(prompts[key].text, response).solved
        found.setdefault(prompts[key].family, []).append((solved, len(response.split())))
    shares = {family: np.mean([row[0] for row in rows]) for family, rows in found.items()}
    words = {family: np.mean([row[1] for row in rows]) for family, rows in found.items()}
    assert min(shares["exam"], shares["drill"]) > 0.95
    assert words["quick check"] < words["exam"] < words["child"]


def test_vocabulary_and_responses_are_small(data: DemoData) -> None:
    responses = {text for pair in data.pairs for text in (pair.chosen, pair.rejected)}
    train = [prompt.text for prompt in in_split(data, "train")]
    words = {word for text in [*responses, *train] for word in re.findall(r"[A-Za-z]+", text)}
    assert len(words) <= 800
    assert max(len(text.splitlines()) for text in responses) <= 8
    assert max(len(text.split()) for text in responses) <= 90


def test_counting_words_does_not_name_the_objective_of_held_out_phrasings(data: DemoData) -> None:
    vectors = TfidfVectorizer(ngram_range=(1, 2))
    train, test = in_split(data, "train"), in_split(data, "test_phrasing")
    features = vectors.fit_transform([prompt.text for prompt in train])
    model = LogisticRegression(C=10, max_iter=1000).fit(features, [dominant(prompt) for prompt in train])
    named = model.predict(vectors.transform([prompt.text for prompt in test]))
    assert np.mean(named == np.array([dominant(prompt) for prompt in test])) <= 0.85


def test_families_have_distinct_phrasings_and_enough_texts() -> None:
    texts = [text for family in FAMILIES for text in family.phrasings + family.held_out_phrasings]
    assert len(set(texts)) == len(texts)
    assert all(text.count("{t}") == 1 for text in texts)
    assert sum(family.share for family in FAMILIES) == pytest.approx(1)
