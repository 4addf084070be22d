"""The checker against solutions that were written and judged by hand."""

import pytest
from preforch_training.demo.tutor.checker import Check, accuracy, check, check_response
from preforch_training.demo.tutor.problems import Problem

# 12 + 6 = 18, 18 - 4 = 14, 14 x 3 = 42
PROBLEM = Problem("Mia", "apples", 12, (("+", 6), ("-", 4), ("x", 3)))
PROMPT = (
    "Quick check: Mia has 2 apples. Mia finds 2 more. Mia loses 3 of them. How many apples are there now?"
)


@pytest.mark.parametrize(
    ("solution", "steps", "answer"),
    [
        ("12 + 6 = 18\n18 - 4 = 14\n14 x 3 = 42\nAnswer: 42", (True, True, True), True),
        ("Wow, 12+6=18!\nOff they go: 18 -4= 14.\n3 x 14 = 042\n Answer: 42! ", (True, True, True), True),
        # A wrong step, and what follows from it.
        ("12 + 6 = 19\n19 - 4 = 15\n15 x 3 = 45\nAnswer: 45", (False, False, False), False),
        # A wrong step, and the answer is right all the same.
        ("12 + 6 = 17\n18 - 4 = 14\n14 x 3 = 42\nAnswer: 42", (False, True, True), True),
        # Every step right, and the answer another number.
        ("12 + 6 = 18\n18 - 4 = 14\n14 x 3 = 42\nAnswer: 14", (True, True, True), False),
        # Arithmetic that is true and is not asked for: other numbers, another order, the right step twice.
        ("6 + 6 = 12\n12 + 6 = 18\n12 + 6 = 18", (False, True, False), None),
        ("14 x 3 = 42\n12 + 6 = 18\nAnswer: 42", (True, False), True),
        ("4 - 18 = 14", (False,), None),
        # Steps done in the head.
        ("18 - 4 = 14\nAnswer: 42", (True,), True),
        ("Answer: 42", (), True),
        # No answer: none at all, one that is more than a number, a number alone.
        ("12 + 6 = 18\n18 - 4 = 14", (True, True), None),
        ("Answer: 42.5\nAnswer: about 42\nThe answer: 42\n42", (), None),
        ("Answer:\n42", (), None),
        ("", (), None),
        # The last answer counts.
        ("Answer: 14\nAnswer: 42", (), True),
        ("Answer: 42\nAnswer: 14", (), False),
        # Beyond the range.
        ("12 + 6 = 118\n118 - 4 = 114\n114 x 3 = 342\nAnswer: 342", (False, False, False), False),
        ("12 + 6 = -18\nAnswer: -42", (False,), False),
        (f"12 + {'9' * 5000} = 18\nAnswer: 42{'0' * 5000}", (False,), False),
        # Fractions are not cut, and a long number is not read from its middle.
        ("12 + 6 = 18.5\n1.12 + 6 = 18\n12 + 6 = 18,5", (), None),
        ("112 + 6 = 18", (False,), None),
    ],
)
def test_steps_and_answer_are_judged(solution: str, steps: tuple[bool, ...], answer: bool | None) -> None:
    assert check(PROBLEM, solution) == Check(steps, 3, answer)


def test_a_right_result_by_a_wrong_operation_is_a_wrong_step() -> None:
    found = check_response(PROMPT, "2 x 2 = 4\n4 - 3 = 1\nAnswer: 1")
    assert found == Check((False, True), 2, True)
    assert found.solved
    assert not found.sound


def test_a_prefix_is_sound_until_something_is_wrong() -> None:
    lines = ["Hello!", "12 + 6 = 18", "18 - 4 = 14", "14 x 3 = 42", "Answer: 41"]
    sound = [check(PROBLEM, "\n".join(lines[:n])).sound for n in range(len(lines) + 1)]
    assert sound == [True, True, True, True, True, False]
    assert not check(PROBLEM, "12 + 6 = 17\n18 - 4 = 14").sound


def test_grades_are_two_parts_answer_and_one_part_steps() -> None:
    solutions = {
        "2 + 2 = 4\n4 - 3 = 1\nAnswer: 1": 1,
        "Answer: 1": 2 / 3,
        "2 + 2 = 4\nAnswer: 4": 1 / 6,
        "2 + 2 = 4\n4 - 3 = 1\n1 + 1 = 2\n1 + 2 = 3\nAnswer: 3": 1 / 6,
        "I do not know.": 0,
    }
    assert accuracy([PROMPT] * len(solutions), list(solutions)) == pytest.approx(list(solutions.values()))
