"""Stage `report`: every part of a run measured, beside what is simpler, and judged.

In:  everything that the run has made, and responses that real vLLM draws from its policies.
Out: `report.json` (`report_records.Report`), `report.md`, plots. With `policy = "off"` the parts about the policy are
     left out, on data other than the demo world those that need the truth.
"""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from preforch_models.bundle import read_bundle
from preforch_models.objectives import Record
from pydantic import Field

from preforch_training.demo import world
from preforch_training.records import PreferencePair, Prompt, read_records
from preforch_training.run import Outcome, Run
from preforch_training.scores.table import read_calibration, read_scores

if TYPE_CHECKING:
    import numpy as np

    from preforch_training.config import RunConfig
    from preforch_training.demo.truth import Truth
    from preforch_training.report.facts import Facts
    from preforch_training.report.records import PolicyReport, Report
    from preforch_training.sampling.vllm import Sampler


class Config(Record):
    """`[report]`. The defaults keep the demo's sampling near a minute on two cores."""

    draws: int = Field(default=1000, ge=100)
    """Redraws of every bootstrap interval."""
    grid_step: float = Field(default=0.2, gt=0, le=0.5)
    """Step of the grid of weights for control, sweep and best constant; must divide 1."""
    sweep_prompts: int = Field(default=50, ge=2)
    """Prompts of each swept split that answer for every point of the grid."""
    utility_prompts: int = Field(default=150, ge=2)
    """Prompts of each test split that answer for recommended, uniform, shuffled and true weights."""


def build(run: Run, config: "RunConfig", *, sampler: "Sampler | None" = None) -> None:
    """Make `report/`."""
    artifacts = artifacts_of(run, config)

    def make(folder: Path, work: Path) -> Outcome:
        del work
        # matplotlib and scikit-learn take seconds to import, and every command reads the Config above.
        from preforch_training.report.costs import training_curves
        from preforch_training.report.plots import draw_plots
        from preforch_training.report.tables import render
        from preforch_training.sampling.vllm import VllmSampler

        engine = sampler or VllmSampler()
        report = measure(run, config, engine)
        (folder / "report.json").write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
        images = draw_plots(report, training_curves(artifacts), folder)
        (folder / "report.md").write_text(render(report, images), encoding="utf-8")
        reached = sum(verdict.reached for verdict in report.verdicts)
        counts = {"targets": len(report.verdicts), "targets_reached": reached}
        return Outcome(counts=counts, peak_memory_mib=engine.peak_memory_mib)

    recipe = config.report.model_dump(mode="json") | {"preset": config.preset, "seed": run.seed}
    if not isinstance(config.policy, str):
        recipe |= config.policy.model_dump(include={"temperature", "top_p", "max_response_tokens"})
    run.make(run.report, kind="report", config=recipe, inputs=artifacts, build=make)


def artifacts_of(run: Run, config: "RunConfig") -> dict[str, Path]:
    """Everything that a report reads, by stage."""
    artifacts = {
        "data": run.data,
        **{f"reward/{name}": run.reward(name) for name in config.names},
        "scores": run.scores,
        "orchestrator": run.orchestrator,
        "bundle": run.bundle,
    }
    if not isinstance(config.policy, str):
        artifacts["policy/base"] = run.policy_base
        for number in range(config.policy.online_rounds + 1):
            artifacts[f"policy/round-{number}"] = run.policy_round(config.policy.name, number)
    if not isinstance(config.study, str):
        artifacts["study"] = run.study
    return artifacts


def measure(run: Run, config: "RunConfig", sampler: "Sampler") -> "Report":
    """The whole report."""
    from preforch_training.demo.truth import DemoTruth
    from preforch_training.orchestrator.prediction import predict_weights
    from preforch_training.report.costs import stage_costs
    from preforch_training.report.facts import Draws, Method, gather_facts
    from preforch_training.report.orchestrator import report_orchestrator
    from preforch_training.report.records import Report
    from preforch_training.report.reward import collect_rewards, report_rewards
    from preforch_training.report.robustness.confidence import report_confidence
    from preforch_training.report.robustness.stability import report_stability
    from preforch_training.report.verdicts import find_warnings, judge_run
    from preforch_training.reward.scoring import open_scorer
    from preforch_training.study.records import read_study

    truth = DemoTruth(config.names) if config.data.source == "demo" else None
    method = Method(config.orchestrator.target, config.orchestrator.tau, config.orchestrator.loss)
    draws = Draws(seed=run.seed_for("report", "bootstrap"), draws=config.report.draws)
    prompts = read_records(run.data / "prompts.jsonl", Prompt)
    pairs = read_records(run.data / "pairs.jsonl", PreferencePair)
    scores, calibration = read_scores(run.scores), read_calibration(run.scores)
    facts = gather_facts(config.names, prompts, scores, calibration, method, truth)
    raw = collect_rewards(prompts, pairs, scores, config.names, open_scorer(run, config).raw)
    rewards = report_rewards(facts, pairs, raw, calibration, truth, draws)
    f_PK = predict_weights(run.orchestrator, [prompt.text for prompt in prompts])
    orchestrator = report_orchestrator(facts, f_PK, loss=method.loss, draws=draws)
    confidence = report_confidence(run.orchestrator, facts, draws=draws)
    stability = report_stability(facts, f_PK, partial(predict_weights, run.orchestrator), truth, draws=draws)
    policy = (
        None if isinstance(config.policy, str) else measure_policies(run, config, sampler, facts, f_PK, truth)
    )
    study = None if isinstance(config.study, str) else read_study(run.study)
    onnx_difference = read_bundle(run.bundle).info.onnx_difference
    return Report(
        preset=config.preset,
        seed=run.seed,
        world=None if truth is None else world.world_hash(),
        method={**asdict(method), "calibration": calibration.method},
        objectives=config.names,
        rewards=rewards,
        orchestrator=orchestrator,
        confidence=confidence,
        stability=stability,
        policy=policy,
        study=study,
        stages=tuple(stage_costs(artifacts_of(run, config))),
        verdicts=tuple(judge_run(rewards, orchestrator, policy, onnx_difference)),
        warnings=(
            *find_warnings(rewards, orchestrator, policy, confidence),
            *(study.warnings if study else ()),
        ),
    )


def measure_policies(
    run: Run,
    config: "RunConfig",
    sampler: "Sampler",
    facts: "Facts",
    f_PK: "np.ndarray",
    truth: "Truth | None",
) -> "PolicyReport":
    """The first and the last round of the policy."""
    import numpy as np

    from preforch_training.policy.base_model import PolicyTokenizer
    from preforch_training.report.facts import Draws
    from preforch_training.report.policy import Judge, make_plan, report_policies
    from preforch_training.report.responses import Sampling
    from preforch_training.reward.scoring import open_scorer

    settings = config.policy
    assert not isinstance(settings, str)
    sampling = Sampling(
        context_format=config.context_format,
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_tokens=settings.max_response_tokens,
        seed_of=lambda prompt_id: run.seed_for("report", prompt_id),
    )
    policies = policies_of(run, config)
    reader = PolicyTokenizer(next(iter(policies.values())))
    tokens = settings.max_response_tokens
    fits_P = np.array([reader.has_room(prompt.messages, response_tokens=tokens) for prompt in facts.prompts])
    plan = make_plan(
        facts,
        f_PK,
        fits_P,
        step=config.report.grid_step,
        sweep_prompts=config.report.sweep_prompts,
        utility_prompts=config.report.utility_prompts,
        seed=run.seed_for("report", "shuffle"),
    )
    draws = Draws(seed=run.seed_for("report", "bootstrap"), draws=config.report.draws)
    judge = Judge(facts, truth, open_scorer(run, config).calibrated, sampling, draws)
    return report_policies(policies, sampler, plan, judge)


def policies_of(run: Run, config: "RunConfig") -> Mapping[str, Path]:
    """`offline` and, where there are online rounds, `online`, the last of them."""
    from preforch_training.report.policy import OFFLINE, ONLINE

    assert not isinstance(config.policy, str)
    policies = {OFFLINE: run.policy_round(config.policy.name, 0)}
    if config.policy.online_rounds:
        policies[ONLINE] = run.policy_round(config.policy.name, config.policy.online_rounds)
    return policies
