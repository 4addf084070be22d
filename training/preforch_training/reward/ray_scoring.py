"""Rewards of many responses by Ray Data: a dataset of rows, a pool of actors, rewards in the order of rows.

In:  a picklable function of rows (it loads its model from a folder that all nodes see), rows, a number of
     workers. Out: rewards, (N,), the same as by a plain call.

RAY_ADDRESS names the cluster; without it Ray runs on this machine until the scores are there.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from preforch_training.records import Prompt

OfRows = Callable[[Sequence[Prompt], Sequence[str]], np.ndarray]


class Scorer:
    """What an actor runs on its share of the rows."""

    def __init__(self, of_rows: OfRows) -> None:
        self._of_rows = of_rows

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Rows with their number to rewards with their row's number."""
        prompts = [Prompt.model_validate_json(text) for text in batch["prompt"]]
        return {"row": batch["row"], "reward": self._of_rows(prompts, batch["response"].tolist())}


def score_by_ray(
    of_rows: OfRows, prompts: Sequence[Prompt], responses: Sequence[str], *, workers: int
) -> np.ndarray:
    """(N,) rewards. Raises ValueError where Ray is missing, or its cluster is too small."""
    if not responses:
        return of_rows(prompts, responses)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError(
            "scores.engine is 'ray', which is not installed: pip install 'preference-orchestrator[ray]'"
        ) from error
    rows = [
        {"row": i, "prompt": prompt.model_dump_json(), "response": response}
        for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True))
    ]
    # Neighbours in length go to different workers, so that shares cost alike.
    rows.sort(key=lambda row: len(str(row["prompt"])) + len(str(row["response"])))
    workers = min(workers, len(rows))
    shares = [row for worker in range(workers) for row in rows[worker::workers]]
    with _cluster(ray, workers) as on_device:
        # One block a worker: each loads the model once.
        found = ray.data.from_items(shares, override_num_blocks=workers).map_batches(
            Scorer,
            fn_constructor_args=(of_rows,),
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(size=workers),
            **on_device,
        )
        rewards = {row["row"]: row["reward"] for row in found.iter_rows()}
    return np.array([rewards[i] for i in range(len(responses))])


@contextmanager
def _cluster(ray: Any, workers: int) -> Iterator[dict[str, Any]]:
    """Be connected; gives what each worker takes of the cluster. Raises ValueError where it is too small."""
    ours = not ray.is_initialized()
    if ours:
        # Ray reports to its makers unless told otherwise.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        address = os.environ.get("RAY_ADDRESS", "local")
        # One more than workers: reading the rows is a task as well.
        size = {"num_cpus": workers + 1, "include_dashboard": False} if address == "local" else {}
        ray.init(address=address, log_to_driver=False, configure_logging=False, **size)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        found = ray.cluster_resources()
        device = "GPU" if found.get("GPU", 0) else "CPU"
        if found.get(device, 0) < workers:
            raise ValueError(
                f"scores.workers is {workers}, the Ray cluster has {found.get(device, 0):.0f} {device}s; "
                "each worker takes one"
            )
        yield {"num_gpus": 1} if device == "GPU" else {"num_cpus": 1}
    finally:
        if ours:
            ray.shutdown()
