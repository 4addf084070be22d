"""Policy kind `preference`: a loss on the overall pairs themselves, without rewards or weights (METHOD 7).

In:  the overall pairs of training prompts; the policy that it starts from, which is its reference as well.
Out: `<name>/round-0`, whose conditioning is `fixed`.
"""

from pathlib import Path

from preforch_models.conditioning.fixed import FixedConditioning

from preforch_training.policy.pair_tuning import PairRow, train_on_pairs
from preforch_training.policy.settings.preference import PreferencePolicy
from preforch_training.policy.task import PolicyTask
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.records import OVERALL
from preforch_training.run import Outcome
from preforch_training.tuning.device_memory import free_memory


def build(task: PolicyTask, config: PreferencePolicy) -> None:
    """Make the only round."""
    start = task.start(config.start)

    def make(folder: Path, work: Path) -> Outcome:
        rows = pair_rows(task, start)
        # With their end token.
        fitting = [row for row in rows if row.length < task.shared.max_model_len]
        if not fitting:
            raise ValueError(
                f"none of {len(rows)} pairs fits into {task.shared.max_model_len} tokens; "
                "raise policy.max_model_len"
            )
        model, metrics = train_on_pairs(
            start,
            fitting,
            config,
            seed=task.seed(0, "preference"),
            folder=folder,
            work=work,
            tracking=task.run.tracking("policy", task.name, "round-0"),
        )
        task.save(0, model, start, kind=config.kind, conditioning=FixedConditioning(), folder=folder)
        del model
        free_memory()
        return Outcome(counts={"pairs": len(fitting), "too_long": len(rows) - len(fitting)}, metrics=metrics)

    task.run.make(
        task.round(0),
        kind="policy",
        config=task.recipe | config.model_dump(mode="json"),
        inputs={"data": task.run.data, "previous": start},
        build=make,
    )


def pair_rows(task: PolicyTask, start: Path) -> list[PairRow]:
    """Rows (x, y+, y-) of the overall pairs of training prompts, written without any context."""
    prompts, reader = task.prompts(), PolicyTokenizer(start, FixedConditioning())
    return [
        PairRow(
            tuple(reader.prompt_ids(prompts[pair.prompt_id].messages, weights={})),
            tuple(reader.response_ids(pair.chosen)),
            tuple(reader.response_ids(pair.rejected)),
        )
        for pair in task.run.each_pair(OVERALL, "train")
    ]
