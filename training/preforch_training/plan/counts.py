"""How many pairs a run has, and how many bytes it writes.

In:  a configuration; the run's data, where they are there; sizes of its models. Out: numbers.
"""

from collections import Counter
from collections.abc import Mapping
from itertools import product

from preforch_models.manifest import ArtifactError, read_manifest

from preforch_training.config import RunConfig
from preforch_training.plan.sizes import ModelSize
from preforch_training.records import OVERALL
from preforch_training.tuning.options import Tuning

Pairs = Mapping[tuple[str, str], int]
"""(objective or overall, "train" or "all") -> number of pairs."""


def count_pairs(config: RunConfig) -> Pairs | None:
    """Pairs of a run whose data are there; None where they are not."""
    try:
        counts = read_manifest(config.run.folder / "data", kind="data").counts
    except ArtifactError:
        return None
    found = Counter(dict.fromkeys(product((*config.names, OVERALL), ("train", "all")), 0))
    for name, number in counts.items():
        if name.startswith("pairs/"):
            _, objective, split = name.split("/")
            found[objective, "all"] += number
            found[objective, "train"] += number * (split == "train")
    return dict(found)


def assumed_pairs(config: RunConfig, pairs: int) -> Pairs:
    """As many of each kind, the training split's share of them to train on."""
    train = round(pairs * (1 - config.data.validation_share - config.data.test_share))
    return {
        (name, which): number
        for name in (*config.names, OVERALL)
        for which, number in (("all", pairs), ("train", train))
    }


def written_bytes(config: RunConfig, sizes: Mapping[str, ModelSize | None]) -> float:
    """What a run leaves: rewards with their fold models, the orchestrator, every round of every policy; and
    two checkpoints of the largest training, 12 bytes a trained parameter. Unknown models count nothing."""
    folds = 0 if config.reward.folds == "off" else config.reward.folds
    total, trained = 0.0, [0]
    for reward in config.reward.rewards.values():
        size = sizes.get(reward.base_model)
        if size is not None and isinstance(reward, Tuning):
            total += (1 + folds) * size.stored
            trained.append(_trained(size, reward))
    if (size := sizes[config.orchestrator.encoder]) is not None:
        total += 4 * size.parameters
        trained.append(_trained(size, config.orchestrator) if config.orchestrator.train_encoder else 0)
    if config.policy is not None and (size := sizes[config.policy.base]) is not None:
        total += size.stored
        for policy in config.policies.values():
            total += size.stored * policy.checkpoints
            trained += [_trained(size, training) for training in policy.trainings.values()]
    return total + 2 * 12 * max(trained)


def _trained(size: ModelSize, tuning: Tuning) -> int:
    """Parameters that a training changes."""
    return size.lora(tuning.lora_rank, tuning.lora_targets) if tuning.lora_rank else size.parameters
