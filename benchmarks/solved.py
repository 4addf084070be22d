"""How many held-out problems of the tutor world a policy solves, by the true checker.

In:  a run of `data.source = "tutor"` with policies. Out: a Markdown table on stdout: by policy and test split
the share of answers that are right, of those without any wrong step, and of those that were cut.

    python benchmarks/solved.py runs/tutor --policies sft wic --samples 4

Policies that read weights are asked with f(x). Intervals are over prompts, drawn with replacement.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from preforch_models.policy_card import read_policy_card
from preforch_models.run_folder import find_policy
from preforch_models.weights import round_weights, uniform
from preforch_training.config import read_config
from preforch_training.demo.tutor.checker import check_response
from preforch_training.demo.world import TEST_SPLITS
from preforch_training.orchestrator.prediction import predict_weights
from preforch_training.pipeline import open_run
from preforch_training.records import Prompt
from preforch_training.run import Run
from preforch_training.sampling.settings import Sampling
from preforch_training.sampling.vllm import Sampler, SampleRequest, VllmSampler
from preforch_training.statistics.bootstrap import Bootstrap, mean_interval
from preforch_training.statistics.markdown import table

MEASURES = ("solved", "no wrong step", "cut")


def main(argv: Sequence[str] | None = None) -> None:
    """Draw and print."""
    parser = argparse.ArgumentParser(description="Problems of the tutor world that policies solve.")
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--policies", nargs="+", required=True, help="names of its policies")
    parser.add_argument("--samples", type=int, default=4, help="answers to a prompt")
    parser.add_argument("--temperature", type=float, default=0.7)
    options = parser.parse_args(argv)
    config = read_config(options.run / "config.toml", settings=(f"run.folder={options.run}",))
    if config.data.world != "tutor" or config.policy is None:
        parser.error(f"{options.run} is not a run of the tutor world with policies")
    sampling = config.policy.sampling.model_copy(update={"temperature": options.temperature})
    rows = []
    with VllmSampler(config.policy.engine) as sampler:
        for name in options.policies:
            rows += measure(open_run(config), name, sampler, sampling, samples=options.samples)
    print(table(["policy", "split", *MEASURES], rows))


def measure(
    run: Run, name: str, sampler: Sampler, sampling: Sampling, *, samples: int
) -> list[tuple[str, ...]]:
    """Rows of the table, one for each test split and one for all of them."""
    prompts = [prompt for prompt in run.prompts() if prompt.split in TEST_SPLITS]
    folder = find_policy(run.folder, name=name)
    drawn = sampler.sample(
        folder,
        requests_of(run, folder, prompts, samples=samples),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
    )
    found_NM = np.array(
        [
            (checked.solved, checked.sound, not answer.finished)
            for prompt, answers in zip(prompts, drawn, strict=True)
            for answer in answers
            for checked in [check_response(prompt.text, answer.text)]
        ],
        dtype=float,
    )
    prompt_N = np.repeat(np.arange(len(prompts)), [len(answers) for answers in drawn])
    split_N = np.array([prompt.split for prompt in prompts])[prompt_N]
    bootstrap = Bootstrap(seed=0, replicates=1000)
    rows = []
    for split in (*TEST_SPLITS, "all"):
        which = np.flatnonzero((split_N == split) | (split == "all"))
        intervals = [
            mean_interval(found_NM[which, m], prompt_N[which], bootstrap=bootstrap)
            for m in range(len(MEASURES))
        ]
        rows.append((name, split, *(f"{i.value:.3f} [{i.low:.3f}, {i.high:.3f}]" for i in intervals)))
    return rows


def requests_of(run: Run, folder: Path, prompts: Sequence[Prompt], *, samples: int) -> list[SampleRequest]:
    """One a prompt, each with a seed of its own."""
    if read_policy_card(folder).conditioning.reads_weights:
        weights_PK = predict_weights(run.orchestrator, [prompt.text for prompt in prompts])
    else:
        weights_PK = np.tile(list(uniform(run.names).values()), (len(prompts), 1))
    return [
        SampleRequest(
            prompt.messages,
            round_weights(dict(zip(run.names, weights_K, strict=True)), run.context_format.units),
            n=samples,
            seed=run.seed_for("solved", prompt.id),
        )
        for prompt, weights_K in zip(prompts, weights_PK.tolist(), strict=True)
    ]


if __name__ == "__main__":
    main()
