"""A run's policy, a benchmark's questions: the file of answers that the benchmark's judge reads.

In:  an order, in the words of `preforch answers`. Out: one file, whole or not at all.
"""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from preforch_models.files import write_text
from preforch_models.manifest import ArtifactError, verify
from preforch_models.policy_card import read_policy_card
from preforch_models.run_folder import find_policy

from preforch_training.answers.drawing import Decoding, check_room, draw_answers
from preforch_training.answers.formats import FORMATS, Format
from preforch_training.answers.questions import Key, Question
from preforch_training.answers.weighing import ORCHESTRATOR, UNIFORM, Weigher, make_weigher
from preforch_training.config import RunConfig, read_config
from preforch_training.library_log import library_log
from preforch_training.pipeline import open_run
from preforch_training.run import Run
from preforch_training.sampling.choosing import ChoosingSampler
from preforch_training.sampling.vllm import Sampler, VllmSampler


@dataclass(frozen=True)
class Order:
    """What is wanted. None is the run's own: the policy it serves, its sampling, its seed; of `weights`, the
    orchestrator's where the policy reads any; of `temperature`, the benchmark's where it names one; of
    `name`, run and policy."""

    run: Path
    prompts: Path
    format: str
    output: Path
    policy: str | None = None
    weights: str | None = None
    name: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Export:
    """An order that can be carried out."""

    config: RunConfig
    run: Run
    policy: Path
    questions: list[Question]
    weigh: Weigher
    decoding: Decoding
    render: Callable[..., str]
    model: str
    target: Path


def export(order: Order) -> str:
    """Carry an order out with vLLM; what to tell. Raises ValueError for one that cannot be, before anything
    is sampled."""
    made = prepare(order)
    assert made.config.policy is not None, "the run has the policy"
    logs = made.run.logs
    with (
        library_log(logs / "libraries.log"),
        VllmSampler(made.config.policy.engine, log=logs / "vllm.log") as vllm,
    ):
        return carry_out(made, ChoosingSampler(vllm, dtype=made.config.policy.engine.dtype))


def prepare(order: Order) -> Export:
    """Read and check all that an order names. Raises ValueError, its kin ArtifactError and RecordError
    too."""
    policy = find_policy(order.run, order.policy)
    # A run may have been moved since it was trained.
    config = read_config(order.run / "config.toml", settings=(f"run.folder={json.dumps(str(order.run))}",))
    if config.policy is None:
        raise ArtifactError(f"{order.run / 'config.toml'}: has no [policy]")
    run = open_run(config)
    kind = FORMATS[order.format]
    model = order.name or f"{order.run.resolve().name}-{policy.parent.name}"
    target = _target(order.output, kind, model)
    questions = kind.read(order.prompts)
    if not questions:
        raise ValueError(f"{order.prompts}: holds no question")
    weights = _asked(order.weights, policy)
    own = config.policy
    max_tokens = order.max_tokens or own.max_response_tokens
    verify(policy, kind="policy")
    if weights == ORCHESTRATOR:
        verify(run.orchestrator, kind="orchestrator")
    (evenly,) = make_weigher(run, UNIFORM)([()])
    check_room(questions, evenly, policy, max_tokens)
    decoding = Decoding(
        temperature=lambda question: _first(order.temperature, question.temperature, own.temperature),
        top_p=_first(order.top_p, own.top_p),
        max_tokens=max_tokens,
        seed_of=_seeds(run if order.seed is None else replace(run, seed=order.seed)),
    )
    return Export(
        config, run, policy, questions, make_weigher(run, weights), decoding, kind.render, model, target
    )


def carry_out(made: Export, sampler: Sampler) -> str:
    """Draw all answers and write them; what to tell."""
    answers = draw_answers(made.questions, made.weigh, sampler, made.policy, made.decoding)
    made.target.parent.mkdir(parents=True, exist_ok=True)
    write_text(made.target, made.render(answers, made.model, time.time()))
    cut = sum(not turn.finished for answer in answers for turn in answer.turns)
    limit = f"; {cut} answers were cut at {made.decoding.max_tokens} tokens" if cut else ""
    return f"{made.target}: {len(answers)} questions answered by {made.model}{limit}"


def _asked(weights: str | None, policy: Path) -> str:
    """What the policy is asked with; one that reads no weights is given some all the same."""
    if read_policy_card(policy).conditioning.reads_weights:
        return weights or ORCHESTRATOR
    if weights is not None:
        raise ValueError(
            f"--weights {weights}: the policy {policy.parent.name!r} reads no weights and answers alike "
            "under all of them; leave --weights out, or choose another by --policy-name"
        )
    return UNIFORM


def _target(output: Path, kind: Format, model: str) -> Path:
    """The file to write. Its name is the model's, so that is what the judge finds it by."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", model):
        raise ValueError(
            f"--name {model!r}: the name is a file's; allowed are letters, digits, '.', '_' and '-', first "
            "a letter or digit"
        )
    target = output / kind.file_name.format(model=model)
    if target.exists():
        raise ValueError(f"{target}: is there already; delete it, or choose another --output or --name")
    return target


def _seeds(run: Run) -> Callable[[Key, int], int]:
    return lambda key, turn: run.seed_for("answers", key, turn)


def _first(*values: float | None) -> float:
    """The first that is given; the last one is."""
    return next(value for value in values if value is not None)
