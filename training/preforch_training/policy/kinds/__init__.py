"""The kinds of policy: how each is built. Nothing else tells them apart; `config.Policy` has the settings
of each."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from preforch_training.policy.kinds import cpo, mod, preference, ric, rl, sft, soup, wic
from preforch_training.policy.task import PolicyTask

# Each takes the settings of its own kind, which no common type can say.
KINDS: Mapping[str, Callable[[PolicyTask, Any], None]] = MappingProxyType(
    {
        "wic": wic.build,
        "sft": sft.build,
        "preference": preference.build,
        "rl": rl.build,
        "ric": ric.build,
        "cpo": cpo.build,
        "soup": soup.build,
        "mod": mod.build,
    }
)
