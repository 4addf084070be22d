"""Stage `policy`: a language model that reads weights in its context (PRO-WIC; paper, Eq. 10 and 11).

In:  prompts, scored responses with calibration, the orchestrator, the rewards.
Out: `policy/base/`: the model before any round, with context tokens; `policy/<name>/round-0/` (offline) to `round-n/`
     (online): Hugging Face checkpoints with `preference.json`, `metrics.jsonl`, TensorBoard files, `samples.jsonl`.

Departures from the paper are choices of the config, listed in `preforch_training.policy.wic`.
"""

from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from preforch_models.objectives import Record
from pydantic import Field, model_validator
from transformers import PreTrainedModel

from preforch_training.orchestrator.prediction import predict_weights
from preforch_training.policy import wic
from preforch_training.policy.base_model import (
    PolicyTokenizer,
    Scratch,
    add_context,
    load_base,
    new_model,
    save_policy,
    train_tokenizer,
)
from preforch_training.policy.fine_tuning import SftSettings, TokenRow, fine_tune, fit_rows
from preforch_training.records import (
    PreferencePair,
    Prompt,
    Sample,
    by_id,
    read_records,
    unique_responses,
    write_records,
)
from preforch_training.reward.scoring import open_scorer
from preforch_training.run import Outcome, Run, origin_of
from preforch_training.sampling.vllm import Sampler, SampleRequest, VllmSampler
from preforch_training.scores.table import read_calibration, read_scores

if TYPE_CHECKING:
    from preforch_training.config import RunConfig

DEMO = "demo"
SAMPLES_FILE = "samples.jsonl"


class Config(Record):
    """`[policy]`, with `[policy.offline]`, `[policy.online]` and, for `base = "demo"`, `[policy.scratch]`."""

    name: str = Field(default="wic", pattern=r"^[a-z][a-z0-9_-]*$")
    """Folder below `policy/`."""
    base: str
    """"demo" makes a small model from scratch; otherwise a folder or hub id."""
    revision: str = "main"
    """Revision of a hub id."""
    scratch: Scratch = Scratch()
    """Size of the demo's model."""
    max_model_len: int = Field(default=4096, ge=16)
    """Tokens of prompt and response together; longer training rows are left out and counted."""
    offline_responses: wic.OfflineResponses
    """`all` [paper]; `chosen_and_filtered` [ours]: chosen ones, and others of high utility under their own weights."""
    offline_tau: float = Field(gt=0)
    """w*(x, y) = softmax(r / tau), Eq. 7. 0.1 [paper]"""
    quality_quantile: float = Field(default=0.7, ge=0, lt=1)
    """Quantile of the filters, over known responses. 0.7 [RiC]"""
    offline: SftSettings
    """10,000 steps [paper], learning rate 1.4e-4, LoRA 64/128 [RiC]."""
    online_rounds: int = Field(default=2, ge=0)
    """2 [paper]"""
    online_prompts: int = Field(default=5000, ge=1)
    """Training prompts sampled in each round; 5,000 [paper]. All, where there are fewer."""
    online: SftSettings
    """5,000 steps [paper], learning rate 1e-5 [RiC]."""
    samples_per_prompt: int = Field(ge=1)
    """1 [paper], 8 [ours]"""
    keep: wic.Keep
    """`any_above_quantile` [RiC]; `best_by_weights` [ours]: consistent with what was asked."""
    random_weight_share: float = Field(ge=0, le=1)
    """Share of online prompts under Dirichlet(1) weights; 0 [paper], a quarter to a half [ours]."""
    original_share: float = Field(default=0.5, ge=0, lt=1)
    """Share of known responses, filtered alike, among the rows of an online round. [RiC]"""
    temperature: float = Field(default=0.7, gt=0)
    """[paper]"""
    top_p: float = Field(default=0.9, gt=0, le=1)
    """[paper]"""
    max_response_tokens: int = Field(default=512, ge=1)
    """Token limit of a sampled response."""

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if self.max_response_tokens >= self.max_model_len:
            raise ValueError(
                f"max_response_tokens {self.max_response_tokens} leaves no room for a prompt in max_model_len "
                f"{self.max_model_len}"
            )
        return self


def build(run: Run, config: "RunConfig", *, sampler: Sampler | None = None) -> None:
    """Make `policy/base/` and all rounds. Nothing where the config says `policy = "off"`."""
    settings = config.policy
    if settings == "off":
        return
    common = {
        "context": config.context_format.model_dump(),
        "max_model_len": settings.max_model_len,
        "seed": run.seed,
    }
    offline = {"name", "offline_responses", "offline_tau", "quality_quantile", "offline"}
    online = set(Config.model_fields) - {
        "base",
        "revision",
        "scratch",
        "max_model_len",
        "offline",
        "online_rounds",
    }
    run.make(
        run.policy_base,
        kind="policy-base",
        config=common
        | settings.model_dump(include={"base", "revision", "scratch"})
        | {"origin": origin_of(settings.base)},
        inputs={"data": run.data} if settings.base == DEMO else {},
        build=partial(make_base, run, config),
    )
    inputs = {"data": run.data, "scores": run.scores}
    run.make(
        run.policy_round(settings.name, 0),
        kind="policy",
        config=common | settings.model_dump(include=offline),
        inputs=inputs | {"previous": run.policy_base},
        build=partial(make_offline, run, config),
    )
    inputs |= {
        "orchestrator": run.orchestrator,
        **{f"reward/{name}": run.reward(name) for name in config.names},
    }
    for number in range(1, settings.online_rounds + 1):
        run.make(
            run.policy_round(settings.name, number),
            kind="policy",
            config=common | settings.model_dump(include=online) | {"round": number},
            inputs=inputs | {"previous": run.policy_round(settings.name, number - 1)},
            build=partial(make_online, run, config, number, sampler or VllmSampler()),
        )


def make_base(run: Run, config: "RunConfig", folder: Path, work: Path) -> Outcome:
    """The policy before any training: a pretrained model, or a new one, that knows the context tokens."""
    settings = _settings(config)
    model: PreTrainedModel
    if settings.base == DEMO:
        tokenizer = train_tokenizer(_training_texts(run), vocabulary=settings.scratch.vocabulary)
        seed = run.seed_for("policy", "base")
        model = new_model(len(tokenizer), settings.scratch, max_model_len=settings.max_model_len, seed=seed)
    else:
        model, tokenizer = load_base(settings.base, revision=settings.revision)
    new_rows = add_context(model, tokenizer, config.context_format, seed=run.seed_for("policy", "context"))
    save_policy(
        folder, model, tokenizer, config.context_format, max_model_len=settings.max_model_len, name="base"
    )
    return Outcome(
        counts={"parameters": model.num_parameters(), "tokens": len(tokenizer), "new_tokens": len(new_rows)}
    )


def make_offline(run: Run, config: "RunConfig", folder: Path, work: Path) -> Outcome:
    """Round 0: SFT on (x, w*(x, y), y) of known responses (Eq. 10)."""
    settings = _settings(config)
    known = _known(run, config)
    which_N = np.ones(len(known.responses), dtype=bool)
    if settings.offline_responses == "chosen_and_filtered":
        which_N = wic.good_responses(known, keep="best_by_weights", quantile=settings.quality_quantile)
    reader = PolicyTokenizer(run.policy_base)
    rows = wic.known_rows(known, np.flatnonzero(which_N).tolist(), _prompts(run), reader)
    return _train(run, config, 0, rows, folder=folder, work=work)


def make_online(
    run: Run, config: "RunConfig", number: int, sampler: Sampler, folder: Path, work: Path
) -> Outcome:
    """Round n: sample under f(x), score, filter, SFT on what is kept and on known responses (Eq. 11)."""
    settings = _settings(config)
    policy = run.policy_round(settings.name, number - 1)
    known, prompts, reader = _known(run, config), _prompts(run), PolicyTokenizer(policy)
    file = work / SAMPLES_FILE
    if not file.exists():
        samples = _sample(run, config, number, sampler, known)
        partial_file = file.with_suffix(".partial")
        write_records(partial_file, samples)
        partial_file.replace(file)
    samples = read_records(file, Sample)
    write_records(folder / SAMPLES_FILE, samples)
    fresh = wic.sample_rows(samples, prompts, reader)
    good_N = wic.good_responses(known, keep=settings.keep, quantile=settings.quality_quantile)
    seed = run.seed_for("policy", settings.name, number, "originals")
    mixed = wic.originals(good_N, fresh=len(fresh), share=settings.original_share, seed=seed)
    outcome = _train(
        run, config, number, fresh + wic.known_rows(known, mixed, prompts, reader), folder=folder, work=work
    )
    counts = {"samples": len(samples), "kept": len(fresh), "originals": len(mixed)}
    metrics = wic.sample_metrics(samples, per_prompt=settings.samples_per_prompt)
    return Outcome(
        counts=outcome.counts | counts,
        metrics=outcome.metrics | metrics,
        peak_memory_mib=sampler.peak_memory_mib,
    )


def _sample(run: Run, config: "RunConfig", number: int, sampler: Sampler, known: wic.Known) -> list[Sample]:
    """The samples of one round, scored and judged."""
    settings = _settings(config)
    policy = run.policy_round(settings.name, number - 1)
    chosen = _prompts_for_round(run, settings, number, PolicyTokenizer(policy))
    predicted_NK = predict_weights(run.orchestrator, [prompt.text for prompt in chosen])
    seed = run.seed_for("policy", settings.name, number, "weights")
    asks = wic.ask(
        chosen, predicted_NK, config.context_format, random_share=settings.random_weight_share, seed=seed
    )
    requests = [
        SampleRequest(
            messages=asked.prompt.messages,
            weights=asked.weights,
            n=settings.samples_per_prompt,
            seed=run.seed_for("policy", settings.name, number, asked.prompt.id),
        )
        for asked in asks
    ]
    generations = sampler.sample(
        policy,
        requests,
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_tokens=settings.max_response_tokens,
    )
    rewards_NK = open_scorer(run, config).calibrated(
        [asked.prompt for asked in asks for _ in range(settings.samples_per_prompt)],
        [generation.text for group in generations for generation in group],
    )
    return wic.judge(
        asks, generations, rewards_NK, known, keep=settings.keep, quantile=settings.quality_quantile
    )


def _prompts_for_round(run: Run, settings: Config, number: int, reader: PolicyTokenizer) -> list[Prompt]:
    """Training prompts in random order that leave room for a response."""
    prompts = list(_prompts(run).values())
    order = np.random.default_rng(run.seed_for("policy", settings.name, number, "prompts")).permutation(
        len(prompts)
    )
    tokens = settings.max_response_tokens
    fitting = (p for p in (prompts[i] for i in order) if reader.has_room(p.messages, response_tokens=tokens))
    found = list(islice(fitting, settings.online_prompts))
    if not found:
        raise ValueError(f"no training prompt leaves room for {tokens} response tokens; raise max_model_len")
    return found


def _train(
    run: Run, config: "RunConfig", number: int, rows: Sequence[TokenRow], *, folder: Path, work: Path
) -> Outcome:
    """Fine-tune the previous round on rows and save the result as a policy."""
    settings = _settings(config)
    previous = run.policy_round(settings.name, number - 1) if number else run.policy_base
    fitting = fit_rows(rows, max_tokens=settings.max_model_len)
    model, metrics = fine_tune(
        previous,
        fitting,
        settings.online if number else settings.offline,
        seed=run.seed_for("policy", settings.name, number, "sft"),
        folder=folder,
        work=work,
    )
    tokenizer = PolicyTokenizer(previous).tokenizer
    save_policy(
        folder,
        model,
        tokenizer,
        config.context_format,
        max_model_len=settings.max_model_len,
        name=settings.name,
    )
    return Outcome(counts={"rows": len(fitting), "too_long": len(rows) - len(fitting)}, metrics=metrics)


def _settings(config: "RunConfig") -> Config:
    assert config.policy != "off", "no policy, no policy stage"
    return config.policy


def _prompts(run: Run) -> dict[str, Prompt]:
    """Training prompts by id."""
    return by_id(p for p in read_records(run.data / "prompts.jsonl", Prompt) if p.split == "train")


def _known(run: Run, config: "RunConfig") -> wic.Known:
    calibration = read_calibration(run.scores)
    return wic.known_responses(
        read_scores(run.scores), calibration, config.names, tau=_settings(config).offline_tau
    )


def _training_texts(run: Run) -> list[str]:
    """What the demo's vocabulary is learned from: training prompts and their responses."""
    pairs = [p for p in read_records(run.data / "pairs.jsonl", PreferencePair) if p.split == "train"]
    return [p.text for p in _prompts(run).values()] + [response for _, response in unique_responses(pairs)]
