"""Policy kind `preference`: a loss on pairs themselves (METHOD 7).

In:  the overall pairs of training prompts, or, for `modpo`, those of one objective and the calibrated rewards
     of the others; the policy that it starts from, which is its reference as well.
Out: `<name>/round-0`, whose conditioning is `fixed`. Of `selective_dpo` also `<name>/run-1..n`, which say how
     difficult its pairs are.
"""

from pathlib import Path

from preforch_models.conditioning.fixed import FixedConditioning

from preforch_training.policy.kinds.difficulty import easiest_first, judge_difficulty
from preforch_training.policy.kinds.pair_rows import fitting, pair_rows, with_reference
from preforch_training.policy.pair_tuning import train_on_pairs
from preforch_training.policy.settings.preference import PreferencePolicy
from preforch_training.policy.task import PolicyTask
from preforch_training.run import Outcome
from preforch_training.tuning.device_memory import free_memory


def build(task: PolicyTask, config: PreferencePolicy) -> None:
    """Make the only round, and before it what says which pairs are easy."""
    start = task.start(config.start)
    rewards = {"scores": task.run.scores, **task.run.rewards} if config.weights else {}
    judged = judge_difficulty(task, config, start)

    def make(folder: Path, work: Path) -> Outcome:
        rows = pair_rows(task, start, objective=config.objective)
        fit = fitting(rows, max_tokens=task.shared.max_model_len)
        counts = {"pairs": len(fit), "too_long": len(rows) - len(fit)}
        used = with_reference(task, start, fit, config)
        if config.share is not None:
            used = easiest_first(used, list(judged.values()), share=config.share)
            counts |= {"pairs": len(used), "too_difficult": len(fit) - len(used)}
        model, metrics = train_on_pairs(
            start,
            used,
            config,
            seed=task.seed(0, "preference"),
            folder=folder,
            work=work,
            tracking=task.run.tracking("policy", task.name, "round-0"),
        )
        task.save(0, model, start, kind=config.kind, conditioning=FixedConditioning(), folder=folder)
        del model
        free_memory()
        return Outcome(counts=counts, metrics=metrics)

    task.run.make(
        task.round(0),
        kind="policy",
        config=task.recipe | config.model_dump(mode="json"),
        inputs={"data": task.run.data, "previous": start, **rewards, **judged},
        build=make,
    )
