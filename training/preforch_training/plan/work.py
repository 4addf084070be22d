"""Memory and work of the stages, by formula: nothing is loaded.

In:  a configuration, sizes of its models, counts of pairs. Out: `Load`s, one for each thing that a stage does
     with a model.

Work, with N = parameters that a token is multiplied with and D = tokens: 6 N D to train, 2 N D more where
activations are computed twice (gradient checkpointing), 2 N D to read or to write. LoRA takes less, since
frozen weights have no gradient: about 4 N D in place of 6.

Memory, in bytes, of one device that has its share of the rows of a batch:
1. trained parameters: 4 for the weight, 4 for its gradient, 8 for AdamW, all 32-bit; frozen ones, under
   LoRA: the checkpoint's own width;
2. activations: 34 x rows x tokens x hidden a layer (arXiv 2205.05198 without its attention scores, which
   fused attention does not keep; 16-bit), for all layers, or, with gradient checkpointing, for one and the
   inputs of all; logits and their gradient: 8 x rows x tokens x vocabulary;
   reinforcement keeps its reward models beside them, 4 bytes a parameter;
3. data parallel: every device holds all of 1; `fsdp2`: 1 / devices of it, and a layer at a time.
What libraries, CUDA and fragments take comes on top: 2 to 5 GiB.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from preforch_training.config import RunConfig
from preforch_training.plan.sizes import ModelSize
from preforch_training.policy.config import Config as PolicyConfig
from preforch_training.policy.config import Policy
from preforch_training.records import OVERALL
from preforch_training.reward.config import Config as RewardConfig
from preforch_training.reward.config import Reward
from preforch_training.tuning.options import Tuning

TRAIN, READ, RECOMPUTE = 6, 2, 2


@dataclass(frozen=True)
class Memory:
    """Bytes of one device under data parallelism."""

    weights: float
    gradients: float
    optimiser: float
    activations: float

    def on(self, devices: int = 1) -> float:
        """The sum, with weights, gradients and optimiser state divided among devices."""
        return (self.weights + self.gradients + self.optimiser) / devices + self.activations


@dataclass(frozen=True)
class Load:
    """What a stage does with a model. `size`: None where unknown; `memory`: None where nothing is trained."""

    stage: str
    model: str
    size: ModelSize | None
    tokens: float
    per_parameter: int
    """FLOPs for each token and parameter."""
    memory: Memory | None = None

    @property
    def flops(self) -> float | None:
        """Work; None where the model is unknown."""
        return None if self.size is None else self.per_parameter * self.size.multiplied * self.tokens


@dataclass(frozen=True)
class Scale:
    """What a plan counts with. `pairs`: (objective or overall, "train" or "all") -> number of pairs.

    `row_tokens`: mean tokens of a prompt with its response; None: as many as each stage allows.
    """

    pairs: Mapping[tuple[str, str], int]
    nproc: int = 1
    row_tokens: int | None = None
    sizes: Mapping[str, ModelSize | None] = field(default_factory=dict)

    def tokens(self, most: int) -> int:
        """Tokens of a row, of which at most so many are read."""
        return most if self.row_tokens is None else min(most, self.row_tokens)


def loads(config: RunConfig, scale: Scale) -> Iterator[Load]:
    """Everything a run does with its models, in the order of its stages; without the report's responses."""
    yield from reward_loads(config, scale)
    yield from scoring_loads(
        config.reward.rewards, scale, "scores", responses=2 * scale.pairs[OVERALL, "all"]
    )
    yield orchestrator_load(config, scale)
    for name, policy in config.policies.items():
        assert config.policy is not None
        yield from policy_loads(config, config.policy, f"policy/{name}", policy, scale)


def reward_loads(config: RunConfig, scale: Scale) -> Iterator[Load]:
    """Trainings of reward models with their fold models."""
    folds = 0 if config.reward.folds == "off" else config.reward.folds
    # Each of k fold models is trained on (k - 1) / k of the pairs.
    models = 1 + max(0, folds - 1)
    for name, reward in config.reward.rewards.items():
        if not isinstance(reward, Tuning):
            continue  # given, or a head on frozen vectors: next to nothing
        size, tokens = scale.sizes[reward.base], scale.tokens(reward.max_tokens)
        # Both sides of a pair are rows.
        rows = 2 * reward.batch_size / scale.nproc
        yield Load(
            stage=f"reward/{name}",
            model=reward.base,
            size=size,
            tokens=2 * scale.pairs[name, "train"] * tokens * reward.epochs * models,
            per_parameter=work_of(reward),
            memory=training_memory(size, reward, rows=rows, tokens=reward.max_tokens),
        )


def scoring_loads(
    rewards: Mapping[str, Reward], scale: Scale, stage: str, *, responses: int
) -> Iterator[Load]:
    """Every reward reads every response."""
    for name, reward in rewards.items():
        if reward.base_model:
            yield Load(
                stage=f"{stage}, {name}",
                model=reward.base_model,
                size=scale.sizes[reward.base_model],
                tokens=responses * scale.tokens(reward.max_tokens),
                per_parameter=READ,
            )


def reward_bytes(config: RewardConfig, rewards: Mapping[str, Reward], scale: Scale) -> float:
    """Of some reward models at once, in 32 bits: those of every fold, where training prompts have such."""
    folds = 1 if config.folds == "off" else config.folds
    total = 0.0
    for reward in rewards.values():
        size = scale.sizes.get(reward.base_model) if reward.base_model else None
        if size is not None:
            total += 4 * size.parameters * (folds if isinstance(reward, Tuning) else 1)
    return total


def orchestrator_load(config: RunConfig, scale: Scale) -> Load:
    """The training of f, or one reading of its prompts where the encoder stays as it is."""
    settings = config.orchestrator
    size, tokens = scale.sizes[settings.encoder], scale.tokens(settings.max_tokens)
    prompts = scale.pairs[OVERALL, "train"]
    trained, rows = settings.train_encoder, settings.batch_size / scale.nproc
    return Load(
        stage="orchestrator",
        model=settings.encoder,
        size=size,
        tokens=prompts * tokens * (settings.epochs if trained else 1),
        per_parameter=work_of(settings) if trained else READ,
        memory=training_memory(size, settings, rows=rows, tokens=settings.max_tokens) if trained else None,
    )


def policy_loads(
    config: RunConfig, shared: PolicyConfig, stage: str, policy: Policy, scale: Scale
) -> Iterator[Load]:
    """The fine-tunings of a policy; before each online one, sampling and scoring."""
    size, tokens = scale.sizes[shared.base], scale.tokens(shared.max_model_len)
    rewards = config.reward.overall_alone if policy.by_overall else config.reward.objectives
    for key, training in policy.trainings.items():
        times = policy.repeats[key]
        if not times:
            continue
        if responses := times * training.samples:
            yield Load(f"{stage}, {key}, sampling", shared.base, size, responses * tokens, READ)
            yield from scoring_loads(rewards, scale, f"{stage}, {key}, scoring", responses=responses)
        rows = policy.sides * training.steps * training.batch_size * training.accumulation
        memory = training_memory(
            size,
            training,
            rows=policy.sides * training.batch_size / scale.nproc,
            tokens=shared.max_model_len,
            head=True,
        )
        if policy.has_reference:
            yield Load(f"{stage}, {key}, reference", shared.base, size, times * rows * tokens, READ)
            # LoRA finds it by leaving its adapters out.
            if memory is not None and size is not None and not training.lora_rank:
                memory = replace(memory, weights=memory.weights + 4 * size.parameters)
        if training.keeps_rewards and memory is not None:
            memory = replace(memory, weights=memory.weights + reward_bytes(config.reward, rewards, scale))
        yield Load(
            stage=f"{stage}, {key}",
            model=shared.base,
            size=size,
            tokens=times * rows * tokens,
            per_parameter=work_of(training),
            memory=memory,
        )


def work_of(tuning: Tuning) -> int:
    """FLOPs that a training spends on each token and parameter."""
    return TRAIN + RECOMPUTE * tuning.gradient_checkpointing


def training_memory(
    size: ModelSize | None, tuning: Tuning, *, rows: float, tokens: int, head: bool = False
) -> Memory | None:
    """Of one training, None for a model of unknown size; see the module's docstring.

    `rows` of a batch, as long as they may be: the longest batch decides. `head`: the model writes tokens.
    """
    if size is None:
        return None
    rows = max(1.0, rows)
    lora = tuning.lora_rank > 0
    trained = size.lora(tuning.lora_rank, tuning.lora_targets) if lora else size.parameters
    layer = 34 * rows * tokens * size.hidden
    inputs = 2 * rows * tokens * size.hidden * size.layers
    logits = 8 * rows * tokens * size.vocabulary if head else 0
    return Memory(
        weights=4 * trained + (size.width * size.parameters if lora else 0),
        gradients=4 * trained,
        optimiser=8 * trained,
        activations=(inputs + layer if tuning.gradient_checkpointing else size.layers * layer) + logits,
    )
