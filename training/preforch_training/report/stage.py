"""Stage `report`: every part of a run measured, beside what is simpler, and judged.

In:  everything that the run has made, and responses that vLLM draws from its policies.
Out: `report.json` (`records.Report`), `report.md` and `index.html` with the same tables, plots. Without
     policies the parts about them are left out, on data of no generated world those that need the truth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from preforch_models.bundle import read_bundle

from preforch_training.demo.truth import Truth, WorldTruth
from preforch_training.demo.world import World
from preforch_training.demo.worlds import WORLDS
from preforch_training.orchestrator.artifact import read_orchestrator_info
from preforch_training.orchestrator.prediction import predict_weights
from preforch_training.policy.known_responses import Known, known_responses
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.records import Prompt, write_record
from preforch_training.report.config import BestOf, Config
from preforch_training.report.costs import stage_costs, training_curves
from preforch_training.report.facts import Method, gather_facts
from preforch_training.report.orchestrator import report_orchestrator
from preforch_training.report.page.render import render_page
from preforch_training.report.plots import draw_plots
from preforch_training.report.policies.comparison import report_policies
from preforch_training.report.policies.fronts import scale_of
from preforch_training.report.policies.judging import PolicyJudge
from preforch_training.report.policies.plan import OFFLINE, ONLINE, Contender, contender, make_plan
from preforch_training.report.policies.records import Measure, PolicyReport, Scale
from preforch_training.report.policies.responses import Drawing
from preforch_training.report.policies.rounds import report_rounds
from preforch_training.report.records import REPORT_FILE, Report
from preforch_training.report.reward import collect_rewards, in_sample_warnings, report_rewards
from preforch_training.report.robustness.confidence import report_confidence
from preforch_training.report.robustness.stability import report_stability
from preforch_training.report.tables import render
from preforch_training.report.verdicts import find_warnings, judge_run
from preforch_training.reward.scoring import RunRewards
from preforch_training.run import Outcome, Run
from preforch_training.sampling.settings import Sampling
from preforch_training.sampling.vllm import Sampler
from preforch_training.scores.calibration import CalibratedRewards
from preforch_training.scores.table import read_calibration, read_scores
from preforch_training.statistics.bootstrap import Bootstrap
from preforch_training.study.records import read_study


@dataclass(frozen=True)
class ReportSubject:
    """What a report is about. `policies`: the rounds of each, by name; `served` is the one that is judged in
    full.

    `overrides`: what the run has otherwise than its preset.
    `source`: of the data; the truth of a generated world is known. `studied`: the run has a study.
    """

    source: str
    overrides: tuple[str, ...]
    studied: bool
    policies: Mapping[str, Sequence[Path]]
    served: str | None
    sampling: Sampling | None
    snapshots: Mapping[str, Mapping[int, Path]] = field(default_factory=dict)
    """By policy and number of samples, what it was on the way."""

    @property
    def world(self) -> World | None:
        """The generated world that the data are of."""
        return WORLDS.get(self.source)


def build(run: Run, config: Config, subject: ReportSubject, *, sampler: Sampler) -> None:
    """Make `report/` (METHOD 9) of everything the run has."""
    artifacts = artifacts_of(run, subject)

    def make(folder: Path, work: Path) -> Outcome:
        del work
        report = measure(run, config, subject, sampler)
        write_record(folder / REPORT_FILE, report)
        curves = training_curves(artifacts)
        images = draw_plots(report, curves, folder)
        (folder / "report.md").write_text(render(report, images), encoding="utf-8")
        (folder / "index.html").write_text(render_page(report, curves), encoding="utf-8")
        reached = sum(verdict.reached for verdict in report.verdicts)
        counts = {"targets": len(report.verdicts), "targets_reached": reached}
        return Outcome(counts=counts, peak_memory_mib=sampler.peak_memory_mib)

    recipe = config.model_dump(mode="json") | {
        "preset": run.preset,
        "overrides": list(subject.overrides),
        "seed": run.seed,
        "served": subject.served,
        "sampling": subject.sampling.model_dump() if subject.sampling else None,
    }
    run.make(run.report, kind="report", config=recipe, inputs=artifacts, build=make)


def artifacts_of(run: Run, subject: ReportSubject) -> dict[str, Path]:
    """Everything that a report reads, by stage."""
    artifacts = {
        "data": run.data,
        **run.rewards,
        "scores": run.scores,
        "orchestrator": run.orchestrator,
        "bundle": run.bundle,
    }
    if subject.policies:
        artifacts["policy/base"] = run.policy_base
    for name, rounds in subject.policies.items():
        # Runs that a policy is the mean of are a part of what it cost.
        runs = sorted(rounds[0].parent.glob("run-*"))
        artifacts |= {f"policy/{name}/{folder.name}": folder for folder in (*runs, *rounds)}
    if subject.studied:
        artifacts["study"] = run.study
    return artifacts


def measure(run: Run, config: Config, subject: ReportSubject, sampler: Sampler) -> Report:
    """What `report.json` holds; answers are sampled where the run has policies."""
    truth = None if subject.world is None else WorldTruth(subject.world, run.names)
    fitted = read_orchestrator_info(run.orchestrator)
    method = Method(fitted.config.target, fitted.tau, fitted.config.loss)
    bootstrap = Bootstrap(seed=run.seed_for("report", "bootstrap"), replicates=config.replicates)
    prompts, pairs = run.prompts(), run.pairs()
    scores, calibration = read_scores(run.scores), read_calibration(run.scores)
    facts = gather_facts(run.names, prompts, scores, calibration, method, truth)
    run_rewards = RunRewards(run)
    raw = collect_rewards(prompts, pairs, scores, run.names, run_rewards.raw)
    rewards = report_rewards(facts, pairs, raw, calibration, truth, bootstrap)
    f_PK = predict_weights(run.orchestrator, [prompt.text for prompt in prompts])
    orchestrator = report_orchestrator(facts, f_PK, loss=method.loss, bootstrap=bootstrap)
    confidence = report_confidence(run.orchestrator, facts, bootstrap=bootstrap)
    stability = report_stability(
        facts, f_PK, partial(predict_weights, run.orchestrator), truth, bootstrap=bootstrap
    )
    policy = None
    if subject.sampling is not None:
        drawing = Drawing(
            context_format=run.context_format,
            sampling=subject.sampling,
            seed_of=lambda prompt_id: run.seed_for("report", prompt_id),
        )
        judge = PolicyJudge(
            facts=facts,
            truth=truth,
            calibrated=CalibratedRewards(run),
            drawing=drawing,
            bootstrap=bootstrap,
            reference=subject.policies[config.reference][-1] if config.reference else None,
            scales=scales_of(known_responses(scores, calibration, run.names, tau=1.0), prompts, truth, run),
        )
        policy = measure_policies(run, config, subject, sampler, judge, f_PK)
    study = read_study(run.study) if subject.studied else None
    onnx_difference = read_bundle(run.bundle).info.onnx_difference
    return Report(
        preset=run.preset,
        overrides=subject.overrides,
        seed=run.seed,
        world=None if subject.world is None else subject.world.hash(),
        method={**asdict(method), "tau": fitted.config.tau, "calibration": calibration.method},
        tau=method.tau,
        objectives=run.names,
        rewards=rewards,
        orchestrator=orchestrator,
        confidence=confidence,
        stability=stability,
        policy=policy,
        rounds=tuple(report_rounds(subject.policies, run.names)),
        study=study,
        stages=tuple(stage_costs(artifacts_of(run, subject))),
        verdicts=tuple(judge_run(rewards, orchestrator, policy, confidence, onnx_difference)),
        warnings=(
            *in_sample_warnings(run_rewards.in_sample),
            *find_warnings(rewards, orchestrator, policy, confidence),
            *(study.warnings if study else ()),
        ),
    )


def contenders(subject: ReportSubject, best_of: BestOf | None = None) -> list[Contender]:
    """Policies to compare, by the name that tables give them: the served one comes last and is judged in
    full.

    Where that has several rounds, the first is `offline` and the last `online`; others are the end of their
    training.
    """
    found = {name: rounds[-1] for name, rounds in subject.policies.items() if name != subject.served}
    several = []
    if best_of is not None:
        source = subject.policies[best_of.policy][-1]
        name = f"best of {best_of.samples} of {best_of.policy}"
        several = [Contender(name, source, best_of=best_of.samples)]
    first, *later = subject.policies[subject.served] if subject.served else ()
    found |= {OFFLINE: first, ONLINE: later[-1]} if later else {str(subject.served): first}
    none: Mapping[int, Path] = {}
    return [
        *several,
        *(contender(name, folder, subject.snapshots.get(name, none)) for name, folder in found.items()),
    ]


def measure_policies(
    run: Run,
    config: Config,
    subject: ReportSubject,
    sampler: Sampler,
    judge: PolicyJudge,
    f_PK: np.ndarray,
) -> PolicyReport:
    """Every contender's answers on held-out prompts."""
    reader = PolicyTokenizer(run.policy_base)
    tokens, prompts = judge.drawing.sampling.max_tokens, judge.facts.prompts
    fits_P = np.array([reader.has_room(prompt.messages, response_tokens=tokens) for prompt in prompts])
    plan = make_plan(
        judge.facts,
        f_PK,
        fits_P,
        step=config.grid_step,
        sweep_prompts=config.sweep_prompts,
        utility_prompts=config.utility_prompts,
        seed=run.seed_for("report", "shuffle"),
    )
    policies = contenders(subject, config.best_of)
    # The served one may stand under another name.
    names = {str(subject.served): policies[-1].name}
    pairs = [(names.get(first, first), names.get(second, second)) for first, second in config.pairs]
    return report_policies(policies, sampler, plan, judge, pairs=pairs, reference=config.reference)


def scales_of(known: Known, prompts: Sequence[Prompt], truth: Truth | None, run: Run) -> dict[Measure, Scale]:
    """What hypervolumes are measured in, by the rewards of the training responses."""
    rewards: dict[Measure, np.ndarray] = {"calibrated": known.rewards_NK}
    if truth is not None:
        texts = {prompt.id: prompt.text for prompt in prompts}
        pairs = zip(known.prompt_ids, known.responses, strict=True)
        rewards["true"] = np.stack([truth.rewards(texts[asked], response) for asked, response in pairs])
    return {measure: scale_of(measure, run.names, rewards_NK) for measure, rewards_NK in rewards.items()}
