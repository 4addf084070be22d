"""Policy kind `sft`: supervised fine-tuning on the chosen responses, without any weights (METHOD 7).

In:  the chosen responses of training prompts. Out: `<name>/round-0`, whose conditioning is `fixed`.
"""

from pathlib import Path

import numpy as np
from preforch_models.conditioning.fixed import FixedConditioning

from preforch_training.policy.config import SftPolicy
from preforch_training.policy.known_responses import known_rows
from preforch_training.policy.task import PolicyTask
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.run import Outcome

# Weights are computed and not written: any tau serves.
_TAU = 1.0


def build(task: PolicyTask, config: SftPolicy) -> None:
    """Make the only round."""

    def make(folder: Path, work: Path) -> Outcome:
        known = task.known(tau=_TAU)
        conditioning = FixedConditioning()
        reader = PolicyTokenizer(task.run.policy_base, conditioning)
        rows = known_rows(known, np.flatnonzero(known.chosen_N).tolist(), task.prompts(), reader)
        return task.train(
            0, rows, config.training, kind=config.kind, conditioning=conditioning, folder=folder, work=work
        )

    task.run.make(
        task.round(0),
        kind="policy",
        config=task.recipe | config.model_dump(mode="json"),
        inputs={"data": task.run.data, "scores": task.run.scores, "previous": task.run.policy_base},
        build=make,
    )
