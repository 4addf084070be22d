"""Policy kind `soup`: Rewarded Soups (2306.04488; METHOD 7), a baseline of K policies.

In:  policies that were each trained for one objective, with LoRA, from one start.
Out: `<name>/round-0`: the start, and in `members/` an adapter for every point of a grid of weights: the
     weighted mean of the members' changes. Its conditioning is `members`.
"""

from functools import partial
from pathlib import Path

from preforch_models.conditioning.members import Member, MembersConditioning
from transformers import AutoModelForCausalLM

from preforch_training.policy.merged.adapters import read_adapter, weighted_sum, write_adapter
from preforch_training.policy.settings.soup import SoupPolicy
from preforch_training.policy.task import PolicyTask
from preforch_training.run import Outcome
from preforch_training.statistics.metrics import simplex_grid


def build(task: PolicyTask, config: SoupPolicy) -> None:
    """Make the set."""
    policies = {objective: task.start(config.members[objective]) for objective in task.run.names}
    start = task.start(task.policies[next(iter(config.members.values()))].start)
    task.run.make(
        task.round(0),
        kind="policy",
        config=task.recipe | config.model_dump(mode="json"),
        inputs={"previous": start, **policies},
        build=partial(make_set, task, config, start, list(policies.values())),
    )


def make_set(
    task: PolicyTask, config: SoupPolicy, start: Path, policies: list[Path], folder: Path, work: Path
) -> Outcome:
    """The start's checkpoint and all members."""
    del work
    adapters = [read_adapter(policy) for policy in policies]
    members = grid_members(task, config)
    conditioning = MembersConditioning(rank=sum(adapter.rank for adapter in adapters), members=members)
    folders = conditioning.adapters(folder)
    for member in members:
        merged = weighted_sum(adapters, [member.weights[name] for name in task.run.names])
        write_adapter(merged, folders[member.name])
    model = AutoModelForCausalLM.from_pretrained(start, use_safetensors=True, dtype="auto")
    task.save(0, model, start, kind=config.kind, conditioning=conditioning, folder=folder)
    return Outcome(counts={"members": len(members), "policies": len(policies), "rank": conditioning.rank})


def grid_members(task: PolicyTask, config: SoupPolicy) -> tuple[Member, ...]:
    """One for every point of the grid, named after its weights in percent."""
    grid_GK = simplex_grid(len(task.run.names), config.step)
    return tuple(
        Member(
            name="-".join([task.name, *(f"{round(100 * weight)}" for weight in weights_K)]),
            weights=dict(zip(task.run.names, weights_K, strict=True)),
        )
        for weights_K in grid_GK.tolist()
    )
