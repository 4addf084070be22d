"""Stage `study`: which choices of METHOD 2 to 4 hold up, measured by nested cross-fitting over all of a run's prompts.

In:  `data` only; the study trains its own reward heads and orchestrator heads, fold by fold, on frozen vectors, so that
     no number is in-sample. Rewards must be `pair_head`.
Out: `study.json` (`records.Study`). Every trial is kept in the work folder, so that a killed study continues.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from preforch_models.calibration import Method as CalibrationMethod
from preforch_models.encoder import LAST, Layers, Pooling
from preforch_models.objectives import Record
from pydantic import Field

from preforch_training.data.reading import Source, source_hashes
from preforch_training.orchestrator.targets import Loss, Target
from preforch_training.presets import PRESETS
from preforch_training.records import PreferencePair, Prompt, read_records
from preforch_training.run import Outcome, Run, origin_of

if TYPE_CHECKING:
    from preforch_training.config import RunConfig
    from preforch_training.study.choices import Choice


Share = Annotated[float, Field(gt=0, le=1)]


class Features(Record):
    """Pooling and layers of the frozen encoder."""

    pooling: Pooling
    layers: Layers = LAST

    def __str__(self) -> str:
        return f"{self.pooling} of layers {', '.join(map(str, self.layers))}"


class Config(Record):
    """`[study]`. The table of alternatives crosses `targets`, `losses` and `taus`."""

    folds: int = Field(default=5, ge=3, le=20)
    seeds: int = Field(default=3, ge=1)
    draws: int = Field(default=1000, ge=100)
    calibrations: tuple[CalibrationMethod, ...] = ("zscore", "log_odds")
    targets: tuple[Target, ...] = ("chosen_softmax", "advantage_softmax", "margin_softmax")
    losses: tuple[Loss, ...] = ("reverse", "forward", "regress")
    taus: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5, 1.0)
    entropy_priors: tuple[float, ...] = (0.0, 0.01, 0.1)
    """Each makes a `bt_gate`."""
    features: tuple[Features, ...] = (Features(pooling="mean"), Features(pooling="cls"))
    """Of prompts, tried with the recommended choice besides those of the orchestrator."""
    shares: tuple[Share, ...] = (0.125, 0.25, 0.5, 1.0)
    """Of the training prompts, on which the recommended choice and the rewards are fitted again."""
    by_category: bool = False
    """Also hold out whole categories."""
    gap: bool = False
    """Also the closed-form alignment gap; needs prompts with many responses in overall pairs."""
    transfers: tuple[Source, ...] = ()
    """Other sources of overall pairs on which everything fitted here is judged."""


def build(run: Run, config: "RunConfig") -> None:
    """Make `study/`, unless the config says "off"."""
    settings = config.study
    if isinstance(settings, str):
        return

    def make(folder: Path, work: Path) -> Outcome:
        from preforch_training.study.findings import run_study

        prompts = read_records(run.data / "prompts.jsonl", Prompt)
        pairs = read_records(run.data / "pairs.jsonl", PreferencePair)
        study = run_study(run, config, settings, prompts, pairs, work)
        (folder / "study.json").write_text(study.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return Outcome(counts={"prompts": study.prompts, "pairs": study.pairs, "choices": len(study.table)})

    recipe = settings.model_dump(mode="json") | {
        "objectives": list(config.names),
        "rewards": {name: reward.model_dump(mode="json") for name, reward in config.reward.items()},
        "choices": [choice(config).model_dump() for choice in (own_choice, paper_choice)],
        "encoder": config.orchestrator.model_dump(
            mode="json", include={"encoder", "pooling", "layers", "max_tokens"}
        ),
        "transfers": source_hashes(config.data.model_copy(update={"sources": settings.transfers})),
        "origin": origin_of(config.orchestrator.encoder),
        "seed": run.seed,
    }
    run.make(run.study, kind="study", config=recipe, inputs={"data": run.data}, build=make)


def own_choice(config: "RunConfig") -> "Choice":
    """The choice that the run itself makes."""
    from preforch_training.study.choices import Choice

    settings = config.orchestrator
    return Choice(
        calibration=config.scores.calibration,
        target=settings.target,
        loss=settings.loss,
        tau=settings.tau,
        features=str(Features(pooling=settings.pooling, layers=settings.layers)),
        entropy_prior=settings.entropy_prior,
    )


def paper_choice(config: "RunConfig") -> "Choice":
    """The paper's calibration, target, loss and tau on the run's vectors."""
    preset = PRESETS["paper"]
    names = ("target", "loss", "tau")
    changes = {"calibration": preset["scores"]["calibration"], "entropy_prior": 0.0}
    return own_choice(config).model_copy(
        update=changes | {name: preset["orchestrator"][name] for name in names}
    )
