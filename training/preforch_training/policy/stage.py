"""Stage `policy`: the base model, and every policy of the run (METHOD 5 to 8).

In:  prompts, scored responses with calibration, the orchestrator, the rewards.
Out: `policy/base/`: the model before any training, with context tokens; for every `[policies.<name>]` its
     `policy/<name>/round-0..n/`: Hugging Face checkpoints with `preference.json`, `policy.json`,
     `metrics.jsonl`, TensorBoard files, and `samples.jsonl` where it sampled.
"""

import shutil
import sys
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from pathlib import Path

from preforch_models.conditioning.context import ContextConditioning
from transformers import PreTrainedModel

from preforch_training.paths import naming
from preforch_training.policy.base_model import add_context, load_base, new_model, train_tokenizer
from preforch_training.policy.checkpoint import PolicyInfo, save_policy
from preforch_training.policy.config import DEMO, Config, Policy
from preforch_training.policy.kinds import KINDS
from preforch_training.policy.reinforced.snapshots import snapshot
from preforch_training.policy.task import PolicyTask, start_of
from preforch_training.records import unique_responses
from preforch_training.run import Outcome, Run, origin_of
from preforch_training.sampling.vllm import Sampler


def build(run: Run, config: Config, policies: Mapping[str, Policy], *, sampler: Sampler) -> None:
    """Make `policy/base/` and every policy."""
    with naming("policy.base", config.base):
        run.make(
            run.policy_base,
            kind="policy-base",
            config={
                "base": config.model_dump(
                    mode="json", include={"base", "revision", "template", "scratch", "max_model_len"}
                ),
                "context": run.context_format.model_dump(mode="json"),
                "seed": run.seed,
                "origin": origin_of(config.base),
            },
            inputs={"data": run.data} if config.base == DEMO else {},
            build=partial(make_base, run, config),
        )
    for name, policy in policies.items():
        KINDS[policy.kind](PolicyTask(run, config, name, sampler, policies), policy)
        remove_later(run, partial(run.policy_round, name), policy.rounds)
        remove_later(run, partial(run.policy_run, name), policy.runs_apart + 1)


def folders(run: Run, name: str, policy: Policy) -> list[Path]:
    """Rounds of a policy, the finished one last."""
    return [run.policy_round(name, number) for number in range(policy.rounds)]


def snapshots(run: Run, name: str, policies: Mapping[str, Policy]) -> dict[int, Path]:
    """By number of samples, what a policy was on the way, from where it started; nothing without any."""
    kept = policies[name].snapshots_at
    if not kept:
        return {}
    finished = folders(run, name, policies[name])[-1]
    on_the_way = {samples: snapshot(finished, step) for step, samples in kept.items()}
    return {0: start_of(run, policies[name].start, policies), **on_the_way}


def remove_later(run: Run, folder_of: Callable[[int], Path], first: int) -> None:
    """Remove what an earlier configuration left, from a number on: the newest round would be served."""
    for later in count(first):
        folder = folder_of(later)
        if not folder.exists():
            return
        shutil.rmtree(folder)
        label = folder.relative_to(run.folder).as_posix()
        print(f"{label}: removed, the policy has no such part now", file=sys.stderr, flush=True)


def make_base(run: Run, config: Config, folder: Path, work: Path) -> Outcome:
    """The policy before any training: a pretrained model, or a new one, that knows the context tokens."""
    del work
    model: PreTrainedModel
    if config.base == DEMO:
        tokenizer = train_tokenizer(training_texts(run), vocabulary=config.scratch.vocabulary)
        seed = run.seed_for("policy", "base")
        model = new_model(len(tokenizer), config.scratch, max_model_len=config.max_model_len, seed=seed)
    else:
        model, tokenizer = load_base(config.base, revision=config.revision)
    new_rows = add_context(
        model,
        tokenizer,
        run.context_format,
        seed=run.seed_for("policy", "context"),
        template=config.template,
    )
    save_policy(
        folder,
        model,
        tokenizer,
        PolicyInfo(name="base", kind="base", round=None),
        objectives=run.names,
        conditioning=ContextConditioning(encoding=run.context_format.encoding),
        max_model_len=config.max_model_len,
    )
    return Outcome(
        counts={
            "parameters": model.num_parameters(),
            "tokens": len(tokenizer),
            "new_tokens": len(new_rows),
        }
    )


def training_texts(run: Run) -> list[str]:
    """What the demo's vocabulary is learned from: training prompts and their responses."""
    texts = [prompt.text for prompt in run.prompts("train")]
    return texts + [response for _, response in unique_responses(run.pairs(split="train"))]
