"""How far a policy is from a reference, along what it answers (METHOD 9: KL to the reference).

In:  two policies of a run, and answers of the first to weighted prompts. Out: one KL an answer, nats (N,).

At every token of an answer the KL between what both would say next is summed, at temperature 1. The answers
themselves are those of the report, drawn at its temperature: so a policy is 0 nats from itself.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from preforch_training.policy.log_probabilities import Reader, divergences
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.records import Prompt
from preforch_training.report.policies.responses import Drawing, Drawn, Query


def divergence(
    policy: Path,
    reference: Path,
    asked: Sequence[Query],
    drawn: Drawn,
    prompts: Sequence[Prompt],
    drawing: Drawing,
) -> np.ndarray | None:
    """(N,): by the members that answered, where the policy is a set of them. None where it consists of other
    policies, whose tokens no single model says."""
    ours, theirs = PolicyTokenizer(policy), PolicyTokenizer(reference)
    names, conditioning = drawing.context_format.objectives, ours.card.conditioning
    if conditioning.folders(policy):
        return None
    asked_with = [dict(zip(names, weights, strict=True)) for _, weights in asked]
    adapters = conditioning.adapters(policy)
    member_N = np.array([conditioning.choose(weights) or "" for weights in asked_with])
    found_N = np.zeros(len(asked))
    for member in dict.fromkeys(member_N.tolist()):
        rows = np.flatnonzero(member_N == member).tolist()
        messages = [prompts[asked[i][0]].messages for i in rows]
        answers = [drawn.responses[asked[i]] for i in rows]
        found_N[rows] = divergences(
            Reader(policy, adapters.get(member)),
            Reader(reference),
            [ours.prompt_ids(m, asked_with[i]) for m, i in zip(messages, rows, strict=True)],
            [theirs.prompt_ids(m, asked_with[i]) for m, i in zip(messages, rows, strict=True)],
            [(*a.token_ids, ours.end_id) if a.finished else a.token_ids for a in answers],
        )
    return found_N
