"""What answers look like: how many differ, how often they repeat themselves, how long they are (METHOD 9).

Reinforced policies collapse and ramble before their rewards say so. Counted on the answers under the
policy's own weights, one to a prompt, at the temperature of the report.
"""

from collections.abc import Sequence

import numpy as np

from preforch_training.policy.reinforced.repetition import repeated_sentences
from preforch_training.report.policies.plan import Contender
from preforch_training.report.policies.records import Arm, TextMeasures
from preforch_training.statistics.bootstrap import Interval

N = 3
"""Words of an n-gram."""


def measure_texts(policy: Contender, texts: Sequence[str], *, kl: Interval | None) -> TextMeasures:
    """Of all answers of one policy, with its divergence from the reference."""
    words = [text.split() for text in texts]
    grams = [tuple(each[i : i + N]) for each in words for i in range(len(each) - N + 1)]
    return TextMeasures(
        arm=Arm(policy=policy.name, arm=policy.own_arm),
        responses=len(texts),
        distinct=len(set(texts)) / len(texts),
        distinct_grams=len(set(grams)) / max(1, len(grams)),
        repeated=float(np.mean([repeated_sentences(text) for text in texts])),
        words=float(np.mean([len(each) for each in words])),
        kl=kl,
    )
