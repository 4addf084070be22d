"""Policy kind `rl`: reinforcement by the calibrated rewards, weighed prompt by prompt (METHOD 6; Eq. 9).

In:  prompts, the policy that it starts from, the rewards with their calibration, the orchestrator.
Out: `<name>/round-0`, with its `snapshots/` where they are asked for. With several runs `<name>/run-1..n` as
     well, whose parameters it is the mean of. Its conditioning is `context` where it reads weights, else
     `fixed`.
"""

import sys
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from preforch_models.conditioning import Conditioning
from preforch_models.conditioning.context import ContextConditioning
from preforch_models.conditioning.fixed import FixedConditioning

from preforch_training.policy.known_responses import on_grid
from preforch_training.policy.merged.parameters import average
from preforch_training.policy.reinforced.prompt_noise import noisy, words_of
from preforch_training.policy.reinforced.repetition import usual_number
from preforch_training.policy.reinforced.snapshots import snapshot
from preforch_training.policy.reinforced.training import Ask, Reference, reinforce
from preforch_training.policy.settings.rl import RlPolicy
from preforch_training.policy.task import PolicyTask
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.policy.weighting import distance_from_uniform, prompt_weights, with_random
from preforch_training.run import Outcome, Run
from preforch_training.tuning.device_memory import free_memory

NEARLY_UNIFORM = 0.05
"""Mean total variation from equal weights, below which the weights of the prompts hardly matter."""


def build(task: PolicyTask, config: RlPolicy) -> None:
    """Make all runs, and the policy of them."""
    run, start, judged = task.run, task.start(config.start), judged_run(task, config)
    recipe = task.recipe | config.model_dump(mode="json", exclude={"runs"})
    recipe |= {"max_response_tokens": task.shared.max_response_tokens}
    inputs = {"data": run.data, "scores": judged.scores, "orchestrator": run.orchestrator, **judged.rewards}
    runs = [task.run.policy_run(task.name, number) for number in range(1, config.runs + 1)]
    for number, target in enumerate(runs if config.runs > 1 else [task.round(0)]):
        run.make(
            target,
            kind="policy",
            config=recipe | {"run": number},
            inputs=inputs | {"previous": start},
            build=partial(make_run, task, config, start, number),
        )
    if config.runs > 1:
        run.make(
            task.round(0),
            kind="policy",
            config=task.recipe | {"kind": config.kind, "average": config.runs, "snapshots": config.snapshots},
            inputs={target.name: target for target in runs},
            build=partial(make_average, task, config, runs),
        )


def make_run(
    task: PolicyTask, config: RlPolicy, start: Path, number: int, folder: Path, work: Path
) -> Outcome:
    """One training."""
    reader = PolicyTokenizer(start, conditioning(task, config))
    asks = draw_asks(task, config, number, reader)
    judged = judged_run(task, config)
    known = replace(task, run=judged).known(tau=1.0)
    chosen = [text for text, is_chosen in zip(known.responses, known.chosen_N, strict=True) if is_chosen]
    write = task.writer(0, start, kind=config.kind, conditioning=conditioning(task, config))
    model, metrics = reinforce(
        judged,
        start,
        asks,
        Reference(known.rewards_NK, usual_number(chosen)),
        config,
        reader=reader,
        max_tokens=task.shared.max_response_tokens,
        seed=task.seed(number, "rl"),
        write=write,
        folder=folder,
        work=work,
        tracking=task.run.tracking("policy", task.name, folder.name),
    )
    write(folder, model)
    del model
    free_memory()
    distance = distance_from_uniform(np.array([ask.weights for ask in asks]))
    if config.reads_prompts and distance < NEARLY_UNIFORM:
        print(
            f"policies.{task.name}: the weights of its prompts are nearly equal (mean distance from uniform "
            f"{distance:.3f}): weights = {config.weights!r} will hardly differ from 'uniform'",
            file=sys.stderr,
            flush=True,
        )
    samples = len(asks) * config.samples_per_prompt
    return Outcome(
        counts={"prompts": len({ask.prompt.id for ask in asks}), "samples": samples},
        metrics=metrics | {"weights.distance_from_uniform": distance},
    )


def draw_asks(task: PolicyTask, config: RlPolicy, number: int, reader: PolicyTokenizer) -> list[Ask]:
    """The prompts of a training in order, again from the first where there are fewer, with their weights."""
    prompts = task.prompts_with_room(reader, seed=task.seed(number, "prompts"))
    asked = list(islice(cycle(prompts), config.prompts))
    judged = judged_run(task, config)
    weights_NK = prompt_weights(judged, config.weights, asked, seed=task.seed(number, "shuffle"))
    share, seed = config.random_weight_share, task.seed(number, "weights")
    weights_NK, _ = with_random(weights_NK, share=share, seed=seed)
    words = words_of([prompt.text for prompt in prompts])
    rng = np.random.default_rng(task.seed(number, "noise"))
    asks = []
    for prompt, weights_K in zip(asked, weights_NK, strict=True):
        context = on_grid(weights_K, task.run.context_format) if config.reads_weights else {}
        messages = noisy(prompt.messages, words, share=config.prompt_noise, rng=rng)
        if not reader.has_room(messages, response_tokens=task.shared.max_response_tokens):
            messages = prompt.messages
        weights = tuple(context.values()) or tuple(weights_K.tolist())
        asks.append(Ask(prompt, messages, weights, context))
    return asks


def judged_run(task: PolicyTask, config: RlPolicy) -> Run:
    """The run as the rewards of this policy see it: with its K objectives, or with the overall one alone."""
    return task.run.overall if config.by_overall else task.run


def make_average(task: PolicyTask, config: RlPolicy, runs: list[Path], folder: Path, work: Path) -> Outcome:
    """The mean of the runs in parameter space (METHOD 6), and of their snapshots."""
    del work
    told = conditioning(task, config)
    parts = {folder: runs}
    for number in config.snapshots_at:
        parts[snapshot(folder, number)] = [snapshot(run, number) for run in runs]
    for target, policies in parts.items():
        model = average(policies, [1 / len(policies)] * len(policies))
        task.save(0, model, policies[0], kind=config.kind, conditioning=told, folder=target)
    return Outcome(counts={"runs": len(runs)})


def conditioning(task: PolicyTask, config: RlPolicy) -> Conditioning:
    """How the policy is told weights, or that it is told none."""
    if config.reads_weights:
        return ContextConditioning(encoding=task.run.context_format.encoding)
    return FixedConditioning()
