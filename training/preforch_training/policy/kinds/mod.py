"""Policy kind `mod`: Multi-Objective Decoding (2406.18853; METHOD 7), a baseline of K policies.

In:  policies that were each trained for one objective, of one vocabulary.
Out: `<name>/round-0`: their tokenizer, and which they are. Its conditioning is `mixture`; nothing is trained,
     and `preforch_training.sampling.mixture` draws from it.
"""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from preforch_models.conditioning.mixture import MixedPolicy, MixtureConditioning
from preforch_models.policy_card import read_policy_card
from transformers import AutoConfig

from preforch_training.policy.settings.mod import ModPolicy
from preforch_training.policy.task import PolicyTask
from preforch_training.policy.tokenizer import load_tokenizer
from preforch_training.run import Outcome


def build(task: PolicyTask, config: ModPolicy) -> None:
    """Name the members."""
    members = {objective: task.start(config.members[objective]) for objective in task.run.names}
    task.run.make(
        task.round(0),
        kind="policy",
        config=task.recipe | config.model_dump(mode="json"),
        inputs={"previous": next(iter(members.values())), **members},
        build=partial(make_mixture, task, config, members),
    )


def make_mixture(
    task: PolicyTask, config: ModPolicy, members: Mapping[str, Path], folder: Path, work: Path
) -> Outcome:
    """Tokenizer and policy card. Raises ValueError for members that no token can be drawn from together."""
    del work
    check_alike(members)
    conditioning = MixtureConditioning(
        members={
            objective: MixedPolicy(
                folder=os.path.relpath(member, task.round(0)), revision=read_policy_card(member).revision
            )
            for objective, member in members.items()
        }
    )
    first = next(iter(members.values()))
    task.save(0, None, first, kind=config.kind, conditioning=conditioning, folder=folder)
    return Outcome(counts={"policies": len(members)})


def check_alike(members: Mapping[str, Path]) -> None:
    """Raise ValueError unless all members mean the same by every token, and read the same prompts."""
    first, *others = members.items()
    expected = _what_tokens_mean(first[1])
    for objective, member in others:
        found = _what_tokens_mean(member)
        differing = [what for what in expected if expected[what] != found[what]]
        if differing:
            raise ValueError(
                f"the members for {objective!r} ({member}) and {first[0]!r} ({first[1]}) differ in "
                f"{differing[0]}: only policies of one tokenizer can be mixed token by token"
            )


def _what_tokens_mean(policy: Path) -> dict[str, object]:
    tokenizer = load_tokenizer(policy)
    config = AutoConfig.from_pretrained(policy).get_text_config()
    return {
        "vocabulary": tokenizer.get_vocab(),
        "end token": tokenizer.eos_token_id,
        "chat template": tokenizer.chat_template,
        "number of logits": config.vocab_size,
    }
