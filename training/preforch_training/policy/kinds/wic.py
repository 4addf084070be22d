"""Policy kind `wic`: weights in context (PRO-WIC; paper, Eq. 10 and 11).

In:  prompts, scored responses with calibration, the orchestrator, the rewards.
Out: `<name>/round-0` (offline) to `round-n` (online), each with `samples.jsonl` where it sampled.

Departures from the paper are choices of the config; `known_responses` and `online_samples` list them.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from preforch_models.conditioning.context import ContextConditioning

from preforch_training.policy.kinds.online_samples import (
    fold_metrics,
    judge,
    sample_metrics,
    sample_rows,
    weighted,
)
from preforch_training.policy.known_responses import Known, good_responses, known_rows, originals
from preforch_training.policy.settings.wic import OnlineRound, WicPolicy
from preforch_training.policy.task import PolicyTask
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.policy.weighting import prompt_weights, with_random
from preforch_training.records import Sample, read_records, write_records
from preforch_training.run import Outcome
from preforch_training.sampling.vllm import SampleRequest
from preforch_training.scores.calibration import CalibratedRewards

SAMPLES_FILE = "samples.jsonl"
COMPARED_PROMPTS = 200
"""Prompts of a round whose samples are scored by the full rewards as well, to see the difference."""


def build(task: PolicyTask, config: WicPolicy) -> None:
    """Make all rounds."""
    run = task.run
    recipe = task.recipe | config.model_dump(mode="json", include={"kind", "tau", "quality_quantile"})
    inputs = {"data": run.data, "scores": run.scores}
    run.make(
        task.round(0),
        kind="policy",
        config=recipe | {"offline": config.offline.model_dump(mode="json")},
        inputs=inputs | {"previous": task.round(-1)},
        build=partial(make_offline, task, config),
    )
    if config.online is None:
        return
    inputs |= {"orchestrator": run.orchestrator, **run.rewards}
    online = {"online": config.online.model_dump(mode="json"), "sampling": task.shared.sampling.model_dump()}
    for number in range(1, config.online_rounds + 1):
        run.make(
            task.round(number),
            kind="policy",
            config=recipe | online | {"round": number},
            inputs=inputs | {"previous": task.round(number - 1)},
            build=partial(make_online, task, config, config.online, number),
        )


def make_offline(task: PolicyTask, config: WicPolicy, folder: Path, work: Path) -> Outcome:
    """Round 0: SFT on (x, w*(x, y), y) of known responses (Eq. 10)."""
    known = task.known(tau=config.tau)
    which_N = np.ones(len(known.responses), dtype=bool)
    if config.offline.responses == "chosen_and_filtered":
        which_N = good_responses(known, keep="best_by_weights", quantile=config.quality_quantile)
    rows = known_rows(
        known, np.flatnonzero(which_N).tolist(), task.prompts(), PolicyTokenizer(task.round(-1))
    )
    return task.train(
        0,
        rows,
        config.offline,
        kind=config.kind,
        conditioning=_conditioning(task),
        folder=folder,
        work=work,
    )


def make_online(
    task: PolicyTask, config: WicPolicy, online: OnlineRound, number: int, folder: Path, work: Path
) -> Outcome:
    """Round n: sample under f(x), score, filter, SFT on what is kept and on known responses (Eq. 11)."""
    known, prompts = task.known(tau=config.tau), task.prompts()
    reader = PolicyTokenizer(task.round(number - 1))
    file = work / SAMPLES_FILE
    if not file.exists():
        write_records(file, draw_samples(task, config, online, number, known, reader))
    samples = read_records(file, Sample)
    write_records(folder / SAMPLES_FILE, samples)
    fresh = sample_rows(samples, prompts, reader)
    good_N = good_responses(known, keep=online.keep, quantile=config.quality_quantile)
    mixed = originals(
        good_N, fresh=len(fresh), share=online.original_share, seed=task.seed(number, "originals")
    )
    outcome = task.train(
        number,
        fresh + known_rows(known, mixed, prompts, reader),
        online,
        kind=config.kind,
        conditioning=_conditioning(task),
        folder=folder,
        work=work,
    )
    counts = {"samples": len(samples), "kept": len(fresh), "originals": len(mixed)}
    metrics = sample_metrics(samples, known) | compare_folds(task, config, online, samples, known)
    return Outcome(
        counts=outcome.counts | counts,
        metrics=outcome.metrics | metrics,
        peak_memory_mib=task.sampler.peak_memory_mib,
    )


def draw_samples(
    task: PolicyTask,
    config: WicPolicy,
    online: OnlineRound,
    number: int,
    known: Known,
    reader: PolicyTokenizer,
) -> list[Sample]:
    """The samples of one round, scored and judged."""
    run = task.run
    chosen = task.prompts_with_room(reader, seed=task.seed(number, "prompts"))[: online.prompts]
    weights_NK, random_N = with_random(
        prompt_weights(run, online.weights, chosen, seed=0),
        share=online.random_share,
        seed=task.seed(number, "weights"),
    )
    asked = weighted(chosen, weights_NK, random_N, run.context_format, source=online.weights)
    requests = [
        SampleRequest(
            messages=each.prompt.messages,
            weights=each.weights,
            n=online.samples_per_prompt,
            seed=task.seed(number, each.prompt.id),
        )
        for each in asked
    ]
    sampling = task.shared.sampling
    generations = task.sampler.sample(
        task.round(number - 1),
        requests,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
    )
    rewards_NK = CalibratedRewards(run)(
        [each.prompt for each in asked for _ in range(online.samples_per_prompt)],
        [generation.text for group in generations for generation in group],
    )
    quantile = config.quality_quantile
    return judge(asked, generations, rewards_NK, known, keep=online.keep, quantile=quantile)


def compare_folds(
    task: PolicyTask, config: WicPolicy, online: OnlineRound, samples: Sequence[Sample], known: Known
) -> dict[str, float]:
    """What it changes that samples are scored by the models of their prompt's fold, on the first prompts."""
    first, prompts = samples[: COMPARED_PROMPTS * online.samples_per_prompt], task.prompts()
    full_NK = CalibratedRewards(task.run).by_full_models(
        [prompts[sample.prompt_id] for sample in first], [sample.response for sample in first]
    )
    if full_NK is None:
        return {}
    return fold_metrics(first, full_NK, known, keep=online.keep, quantile=config.quality_quantile)


def _conditioning(task: PolicyTask) -> ContextConditioning:
    return ContextConditioning(encoding=task.run.context_format.encoding)
