"""Policy kind `ric`: Rewards in Context (2402.10207; METHOD 7), a baseline.

In:  prompts, scored responses with calibration, the rewards.
Out: `<name>/round-0` (offline) to `round-n` (online), whose conditioning is `scores`; `samples.jsonl` where
     one sampled.

Offline: SFT on (x, scores of y, y) of every known response, chosen and rejected. Online: prompts are asked
with desired scores, what was answered is scored, filtered, and trained on with the scores that it obtained.

Departures from RiC:
1. Which desired score stays low is decided by its share of the way from low to high, so that the objectives'
   ranges have no say in it.
2. A score is written with one decimal, as RiC does, within the range that training responses have.
"""

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from preforch_models.conditioning.scores import ScoresConditioning
from preforch_models.objectives import Record
from preforch_models.score_format import ScoreFormat
from transformers import AutoModelForCausalLM

from preforch_training.policy.base_model import add_context
from preforch_training.policy.checkpoint import PolicyInfo, save_policy
from preforch_training.policy.fine_tuning import TokenRow
from preforch_training.policy.known_responses import Known, any_above, originals
from preforch_training.policy.settings.ric import RicKeep, RicPolicy, RicRound
from preforch_training.policy.task import PolicyTask
from preforch_training.policy.tokenizer import PolicyTokenizer, load_tokenizer
from preforch_training.records import Prompt, read_records, write_records
from preforch_training.run import Outcome
from preforch_training.sampling.vllm import SampleRequest
from preforch_training.scores.calibration import CalibratedRewards

SAMPLES_FILE = "samples.jsonl"


class ScoredSample(Record):
    """One response that the policy gave while it saw `desired`. Rewards are calibrated."""

    prompt_id: str
    desired: tuple[str, ...]
    response: str
    token_ids: tuple[int, ...]
    finished: bool
    rewards: tuple[float, ...]
    kept: bool


def build(task: PolicyTask, config: RicPolicy) -> None:
    """Make all rounds."""
    run = task.run
    recipe = task.recipe | config.model_dump(mode="json", include={"kind", "mapping"})
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
    online = {
        "online": config.online.model_dump(mode="json"),
        "sampling": task.shared.sampling.model_dump(),
        "quality_quantile": config.quality_quantile,
    }
    for number in range(1, config.online_rounds + 1):
        run.make(
            task.round(number),
            kind="policy",
            config=recipe | online | {"round": number},
            inputs=inputs | {"previous": task.round(number - 1), **run.rewards},
            build=partial(make_online, task, config, config.online, number),
        )


def make_offline(task: PolicyTask, config: RicPolicy, folder: Path, work: Path) -> Outcome:
    """Round 0: SFT on every known response under the scores that it has."""
    known = task.known(tau=1.0)
    conditioning = conditioning_of(task, config, known)
    start = work / "start"
    write_start(task, conditioning, start)
    everything = list(range(len(known.responses)))
    rows = known_rows(known, everything, task.prompts(), PolicyTokenizer(start))
    return task.train(
        0,
        rows,
        config.offline,
        kind=config.kind,
        conditioning=conditioning,
        folder=folder,
        work=work,
        previous=start,
    )


def make_online(
    task: PolicyTask, config: RicPolicy, online: RicRound, number: int, folder: Path, work: Path
) -> Outcome:
    """Round n: sample under desired scores, score, filter, SFT under the obtained ones."""
    known, prompts = task.known(tau=1.0), task.prompts()
    reader = PolicyTokenizer(task.round(number - 1))
    file = work / SAMPLES_FILE
    if not file.exists():
        write_records(file, draw_samples(task, config, online, number, known, reader))
    samples = read_records(file, ScoredSample)
    write_records(folder / SAMPLES_FILE, samples)
    kept = [sample for sample in samples if sample.kept]
    good_N = passing(known.rewards_NK, known, keep=online.keep, quantile=config.quality_quantile)
    mixed = originals(
        good_N, fresh=len(kept), share=online.original_share, seed=task.seed(number, "originals")
    )
    outcome = task.train(
        number,
        sample_rows(kept, prompts, reader) + known_rows(known, mixed, prompts, reader),
        online,
        kind=config.kind,
        conditioning=reader.card.conditioning,
        folder=folder,
        work=work,
    )
    counts = {"samples": len(samples), "kept": len(kept), "originals": len(mixed)}
    rewards_K = np.mean([sample.rewards for sample in samples], axis=0)
    metrics = {f"reward.{name}": float(mean) for name, mean in zip(task.run.names, rewards_K, strict=True)}
    return Outcome(
        counts=outcome.counts | counts,
        metrics=outcome.metrics | metrics | {"kept_samples": len(kept) / len(samples)},
        peak_memory_mib=task.sampler.peak_memory_mib,
    )


def draw_samples(
    task: PolicyTask,
    config: RicPolicy,
    online: RicRound,
    number: int,
    known: Known,
    reader: PolicyTokenizer,
) -> list[ScoredSample]:
    """The samples of one round, scored and judged."""
    chosen = task.prompts_with_room(reader, seed=task.seed(number, "prompts"))[: online.prompts]
    context = score_format(reader)
    asked = [
        context.write_scores(scores_K.tolist())
        for scores_K in desired_scores(context, len(chosen), seed=task.seed(number, "scores"))
    ]
    requests = [
        SampleRequest(prompt.messages, {}, n=1, seed=task.seed(number, prompt.id), written=written)
        for prompt, written in zip(chosen, asked, strict=True)
    ]
    sampling = task.shared.sampling
    generations = [
        group[0]
        for group in task.sampler.sample(
            task.round(number - 1),
            requests,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
        )
    ]
    rewards_NK = CalibratedRewards(task.run)(chosen, [generation.text for generation in generations])
    good_N = passing(rewards_NK, known, keep=online.keep, quantile=config.quality_quantile)
    return [
        ScoredSample(
            prompt_id=prompt.id,
            desired=written,
            response=generation.text,
            token_ids=generation.token_ids,
            finished=generation.finished,
            rewards=tuple(rewards_K),
            kept=bool(good and generation.finished),
        )
        for prompt, written, generation, rewards_K, good in zip(
            chosen, asked, generations, rewards_NK.tolist(), good_N, strict=True
        )
    ]


def desired_scores(context: ScoreFormat, count: int, *, seed: int) -> np.ndarray:
    """(N, K): all at the top but the one that was drawn lowest, which stays where it was."""
    low_K, high_K = np.array(context.low), np.array(context.high)
    share_NK = np.random.default_rng(seed).random((count, len(low_K)))
    lowest_NK = share_NK == share_NK.min(axis=1, keepdims=True)
    return np.asarray(low_K + np.where(lowest_NK, share_NK, 1.0) * (high_K - low_K))


def passing(rewards_NK: np.ndarray, known: Known, *, keep: RicKeep, quantile: float) -> np.ndarray:
    """Which responses pass the filter, (N,) bool."""
    if keep == "any_above_quantile":
        return any_above(rewards_NK, known, quantile=quantile)
    threshold = np.quantile(known.rewards_NK.mean(axis=1), quantile)
    return np.asarray(rewards_NK.mean(axis=1) > threshold)


def known_rows(
    known: Known, which: Sequence[int], prompts: Mapping[str, Prompt], reader: PolicyTokenizer
) -> list[TokenRow]:
    """Rows (x, scores of y, y) of known responses."""
    context, rows = score_format(reader), []
    for i in which:
        written = context.write_scores(known.rewards_NK[i].tolist())
        prompt_ids = reader.written_ids(prompts[known.prompt_ids[i]].messages, written)
        rows.append(TokenRow(tuple(prompt_ids), tuple(reader.response_ids(known.responses[i]))))
    return rows


def sample_rows(
    samples: Sequence[ScoredSample], prompts: Mapping[str, Prompt], reader: PolicyTokenizer
) -> list[TokenRow]:
    """Rows (x, obtained scores, y), in the sampler's own tokens."""
    context = score_format(reader)
    return [
        TokenRow(
            tuple(
                reader.written_ids(
                    prompts[sample.prompt_id].messages, context.write_scores(list(sample.rewards))
                )
            ),
            sample.token_ids,
        )
        for sample in samples
    ]


def conditioning_of(task: PolicyTask, config: RicPolicy, known: Known) -> ScoresConditioning:
    """Scores go from the least to the largest reward of a known response."""
    low_K, high_K = (edge.round(1).tolist() for edge in (known.rewards_NK.min(0), known.rewards_NK.max(0)))
    return ScoresConditioning(
        encoding=task.run.context_format.encoding,
        mapping=config.mapping,
        low=tuple(low_K),
        high=tuple(high_K),
    )


def write_start(task: PolicyTask, conditioning: ScoresConditioning, folder: Path) -> None:
    """The base with the tokens of scores, which the training starts from."""
    shutil.rmtree(folder, ignore_errors=True)
    base = task.run.policy_base
    model = AutoModelForCausalLM.from_pretrained(base, use_safetensors=True, dtype="auto")
    tokenizer = load_tokenizer(base)
    add_context(model, tokenizer, conditioning.context_format(task.run.names), seed=task.seed(0, "context"))
    save_policy(
        folder,
        model,
        tokenizer,
        PolicyInfo(name=task.name, kind="ric", round=None),
        objectives=task.run.names,
        conditioning=conditioning,
        max_model_len=task.shared.max_model_len,
    )


def score_format(reader: PolicyTokenizer) -> ScoreFormat:
    """How a policy's scores are written."""
    context = reader.card.context_format
    assert isinstance(context, ScoreFormat), "a policy of this kind reads scores"
    return context
