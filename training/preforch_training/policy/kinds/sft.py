"""Policy kind `sft`: supervised fine-tuning on the chosen responses, without any weights (METHOD 7).

In:  the chosen responses of training prompts. Out: `<name>/round-0`, whose conditioning is `fixed`.
"""

from pathlib import Path

from preforch_models.conditioning.fixed import FixedConditioning

from preforch_training.policy.fine_tuning import TokenRow
from preforch_training.policy.settings.sft import SftPolicy
from preforch_training.policy.task import PolicyTask
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.run import Outcome
from preforch_training.scores.table import read_scores


def build(task: PolicyTask, config: SftPolicy) -> None:
    """Make the only round."""

    def make(folder: Path, work: Path) -> Outcome:
        return task.train(
            0,
            training_rows(task),
            config.training,
            kind=config.kind,
            conditioning=FixedConditioning(),
            folder=folder,
            work=work,
        )

    task.run.make(
        task.round(0),
        kind="policy",
        config=task.recipe | config.model_dump(mode="json"),
        inputs={"data": task.run.data, "scores": task.run.scores, "previous": task.run.policy_base},
        build=make,
    )


def training_rows(task: PolicyTask) -> list[TokenRow]:
    """Rows (x, y) of the distinct chosen responses of training prompts, written without any context."""
    prompts, reader = task.prompts(), PolicyTokenizer(task.run.policy_base, FixedConditioning())
    scores = [score for score in read_scores(task.run.scores) if score.split == "train"]
    chosen = dict.fromkeys((score.prompt_id, score.response) for score in scores if score.side == "chosen")
    return [
        TokenRow(
            tuple(reader.prompt_ids(prompts[prompt_id].messages, weights={})),
            tuple(reader.response_ids(response)),
        )
        for prompt_id, response in chosen
    ]
