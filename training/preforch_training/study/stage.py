"""Stage `study`: which choices of METHOD 2 to 4 hold up, measured by nested cross-fitting over all of a run's
prompts.

In:  `data` only; the study trains its own reward heads and orchestrator heads, fold by fold, on frozen
     vectors, so that no number is in-sample. Rewards must be of a kind that can be cross-fitted.
Out: `study.json` (`records.Study`). Every trial is kept in the work folder, so that a killed study continues.
"""

from pathlib import Path

from preforch_training.data.reading import source_hashes
from preforch_training.records import write_record
from preforch_training.run import Outcome, Run, origin_of
from preforch_training.study.config import Config
from preforch_training.study.findings import run_study
from preforch_training.study.records import STUDY_FILE
from preforch_training.study.subject import StudySubject

__all__ = ["StudySubject", "build"]


def build(run: Run, config: Config, subject: StudySubject) -> None:
    """Make `study/`, from the pairs alone."""

    def make(folder: Path, work: Path) -> Outcome:
        study = run_study(run, config, subject, run.prompts(), run.pairs(), work)
        write_record(folder / STUDY_FILE, study)
        return Outcome(counts={"prompts": study.prompts, "pairs": study.pairs, "choices": len(study.table)})

    orchestrator = subject.orchestrator
    recipe = config.model_dump(mode="json") | {
        "objectives": list(run.names),
        "rewards": {name: reward.model_dump(mode="json") for name, reward in subject.rewards.items()},
        "choices": [choice.model_dump() for choice in (subject.own_choice, subject.paper_choice)],
        "encoder": orchestrator.model_dump(
            mode="json", include={"encoder", "pooling", "layers", "max_tokens"}
        ),
        "transfers": source_hashes(subject.data.model_copy(update={"sources": config.transfers})),
        "origin": origin_of(orchestrator.encoder),
        "reward_origins": {name: origin_of(reward.base_model) for name, reward in subject.rewards.items()},
        "seed": run.seed,
    }
    run.make(run.study, kind="study", config=recipe, inputs={"data": run.data}, build=make)
