"""A benchmark's questions answered by a policy of a run: what is asked, under which weights, what is
refused."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from answers_world import QUESTIONS, RecordingSampler, write_questions, write_run
from instruct_models import write_instruct
from preforch_models.conversation import conversation_text
from preforch_models.weights import assignments, round_weights
from preforch_training.answers.export import Order, carry_out, prepare
from preforch_training.answers.formats import FORMATS
from preforch_training.answers.weighing import make_weigher
from preforch_training.cli import ANSWER_FORMATS
from preforch_training.config import read_config
from preforch_training.orchestrator.prediction import predict_weights
from preforch_training.publishing.card import render_card
from preforch_training.sampling.vllm import Generation, SampleRequest
from preforch_training.untrained.policy import Untrained, write_policy

NAMES = ("helpful", "harmless", "humor")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("answers"))


@pytest.fixture
def order(trained: Path, tmp_path: Path) -> Order:
    return Order(
        trained, write_questions(tmp_path, "mt_bench"), "mt_bench", tmp_path / "out", max_tokens=16, name="m"
    )


def asked(order: Order) -> RecordingSampler:
    sampler = RecordingSampler()
    carry_out(prepare(order), sampler)
    return sampler


def test_the_command_knows_every_format() -> None:
    assert set(ANSWER_FORMATS) == FORMATS.keys()


def test_the_second_turn_is_asked_after_the_first_answer(order: Order) -> None:
    sampler = asked(order)
    said = {request.messages for request in sampler.requests if len(request.messages) > 1}
    assert {tuple((m.role, m.content) for m in messages) for messages in said} == {
        (
            ("user", first),
            ("assistant", f"{first}: **done**"),
            ("user", second),
        )
        for first, second in (row["turns"] for row in QUESTIONS["mt_bench"] if len(row["turns"]) == 2)
    }


def test_an_untrained_model_that_lies_in_the_run_answers_too(order: Order, tmp_path: Path) -> None:
    run = Path(shutil.copytree(order.run, tmp_path / "run"))
    model = write_instruct("qwen3", tmp_path / "Some-7B")
    told = Untrained(model, dict.fromkeys(NAMES, "what it is"), "told")
    write_policy(told, run / "policy" / "told" / "round-0")
    sampler = asked(replace(order, run=run, policy="told", weights="helpful=0.7,harmless=0.2,humor=0.1"))
    assert {call[0] for call in sampler.calls} == {run / "policy" / "told" / "round-0"}
    assert {assignments(request.weights) for request in sampler.requests} == {
        "helpful=0.70,harmless=0.20,humor=0.10"
    }
    card = render_card(run, read_config(run / "config.toml"), "policy/told/round-0")
    assert "Started from: Some-7B, which is as it was." in card


def test_temperatures_are_the_benchmarks_unless_another_is_asked_for(order: Order) -> None:
    # Turn by turn; 1.0 is what the last question says of itself.
    assert [call[1] for call in asked(order).calls] == [0.0, 0.7, 1.0, 0.0, 0.7]
    assert {call[1] for call in asked(replace(order, temperature=0.5, name="n")).calls} == {0.5}


def test_what_neither_order_nor_benchmark_says_is_the_runs(order: Order, tmp_path: Path) -> None:
    other = replace(order, format="arena_hard", prompts=write_questions(tmp_path, "arena_hard"))
    policy = read_config(order.run / "config.toml").policy
    assert policy is not None
    assert {call[1:] for call in asked(other).calls} == {(policy.temperature, policy.top_p, 16)}
    changed = replace(other, top_p=0.5, temperature=0.0, max_tokens=4, name="n")
    assert {call[1:] for call in asked(changed).calls} == {(0.0, 0.5, 4)}


def test_every_turn_is_weighed_by_the_orchestrator_as_the_conversation_then_stands(order: Order) -> None:
    requests = asked(order).requests
    predicted = predict_weights(
        order.run / "orchestrator", [conversation_text(request.messages) for request in requests]
    )
    units = read_config(order.run / "config.toml").context_format.units
    assert [request.weights for request in requests] == [
        round_weights(dict(zip(NAMES, row.tolist(), strict=True)), units) for row in predicted
    ]
    assert len({assignments(request.weights) for request in requests}) > 1


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("uniform", {"helpful": 0.35, "harmless": 0.35, "humor": 0.3}),
        ("humor=3,helpful=1,harmless=0", {"helpful": 0.25, "harmless": 0.0, "humor": 0.75}),
    ],
)
def test_fixed_weights_are_those_of_every_turn(
    order: Order, weights: str, expected: dict[str, float]
) -> None:
    assert {tuple(r.weights.items()) for r in asked(replace(order, weights=weights)).requests} == {
        tuple(expected.items())
    }


def test_weights_are_kept_within_the_objectives_bounds(order: Order) -> None:
    made = prepare(replace(order, weights="humor=1,helpful=0,harmless=0"))
    first, second, humor = made.run.objectives
    bounded = (first, second.model_copy(update={"low": 0.2}), humor)
    weigh = make_weigher(replace(made.run, objectives=bounded), "humor=1,helpful=0,harmless=0")
    assert weigh([[]]) == [{"helpful": 0.0, "harmless": 0.2, "humor": 0.8}]


def test_seeds_are_of_question_and_turn_and_of_nothing_else_in_the_file(order: Order, tmp_path: Path) -> None:
    def seeds(order: Order) -> dict[str, int]:
        return {request.messages[-1].content: request.seed for request in asked(order).requests}

    all_of_them = seeds(order)
    assert len(set(all_of_them.values())) == 6
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    part = write_questions(fewer, "mt_bench", QUESTIONS["mt_bench"][1:3])
    some = seeds(replace(order, prompts=part, name="n"))
    assert some == {text: all_of_them[text] for text in some}
    assert not set(seeds(replace(order, seed=99, name="o")).values()) & set(all_of_them.values())


def test_a_policy_that_reads_no_weights_takes_none(order: Order) -> None:
    with pytest.raises(ValueError, match=r"--weights uniform: the policy 'sft' reads no weights"):
        prepare(replace(order, policy="sft", weights="uniform"))
    sampler = asked(replace(order, policy="sft"))
    assert {call[0].parent.name for call in sampler.calls} == {"sft"}


def test_the_model_is_called_after_run_and_policy(order: Order) -> None:
    made = prepare(replace(order, name=None))
    assert (made.model, made.target) == ("run-wic", order.output / "run-wic.jsonl")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "humor=1"}, "weight of 'helpful' is missing"),
        ({"weights": "best"}, "weights are written name=number"),
        (
            {"policy": "dpo"},
            r"no finished round of policy 'dpo'; choose .*: \['sft', 'wic'\]",
        ),
        ({"name": "a/b"}, "--name 'a/b': the name is a file's; allowed are letters"),
        (
            {"max_tokens": 110},
            r"questions:1: \d+ tokens and 2 answer\(s\) of up to 110 exceed the policy's max_model_len "
            r"256, as do 2 question\(s\) in all; allowed are --max-tokens \d+ at most",
        ),
    ],
)
def test_an_order_that_cannot_be_carried_out_is_refused_before_anything_is_drawn(
    order: Order, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(replace(order, **changes))  # type: ignore[arg-type]  # one of its fields
    assert not order.output.exists()


def test_the_largest_number_of_tokens_that_is_allowed_fits(order: Order) -> None:
    with pytest.raises(ValueError, match="allowed are --max-tokens") as refused:
        prepare(replace(order, max_tokens=110))
    allowed = int(str(refused.value).split("--max-tokens ")[1].split()[0])
    assert prepare(replace(order, max_tokens=allowed)).decoding.max_tokens == allowed
    with pytest.raises(ValueError, match="1 question"):
        prepare(replace(order, max_tokens=allowed + 1))


class WordySampler(RecordingSampler):
    """Its answers are longer than their tokens when they are read again, one by a little, one by far."""

    lengths: ClassVar = {"Write a post.": 180, "1 + 1?": 400}

    def sample(
        self, policy: Path, requests: Sequence[SampleRequest], **options: Any
    ) -> list[list[Generation]]:
        drawn = super().sample(policy, requests, **options)
        for place, request in enumerate(requests):
            if (length := self.lengths.get(request.messages[-1].content)) is not None:
                drawn[place] = [Generation((1,), "~" * length, finished=False)]
        return drawn


def test_an_answer_that_leaves_less_room_than_its_tokens_said_costs_only_the_turn_after_it(
    order: Order,
) -> None:
    sampler, made = WordySampler(), prepare(order)
    said = carry_out(made, sampler)
    second = [call[3] for call in sampler.calls[3:]]
    assert len(second) == 1
    assert 1 <= second[0] < 16
    lines = [json.loads(line) for line in made.target.read_text(encoding="utf-8").splitlines()]
    assert lines[0]["choices"][0]["turns"][1] == "Start each sentence with A.: **done**"
    assert lines[1]["choices"][0]["turns"] == ["~" * 400, ""]
    assert "4 questions answered by m; " in said


def test_answers_that_are_there_are_not_written_over(order: Order) -> None:
    asked(order)
    before = (order.output / "m.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"m\.jsonl: is there already"):
        prepare(order)
    assert (order.output / "m.jsonl").read_bytes() == before


class FailingSampler(RecordingSampler):
    """Dies in its third call."""

    def sample(
        self, policy: Path, requests: Sequence[SampleRequest], **options: Any
    ) -> list[list[Generation]]:
        if len(self.calls) == 2:
            raise OSError("killed")
        return super().sample(policy, requests, **options)


def test_nothing_is_written_before_the_last_answer(order: Order) -> None:
    with pytest.raises(OSError, match="killed"):
        carry_out(prepare(order), FailingSampler())
    assert not order.output.exists()


def test_a_damaged_policy_is_refused(order: Order, tmp_path: Path) -> None:
    copy = tmp_path / "moved"
    shutil.copytree(order.run, copy)
    # A run that was moved answers too.
    assert asked(replace(order, run=copy)).calls[0][0] == copy / "policy" / "wic" / "round-0"
    (copy / "policy" / "wic" / "round-0" / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        prepare(replace(order, run=copy, name="n"))
