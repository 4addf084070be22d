"""The two presets: method choices by config section. Everything else in a config is size, place or hardware.

`paper`: arXiv 2511.10656, its gaps filled from RiC (2402.10207). `recommended`: what our measurements favour
(docs/results.md). A key that a config file gives wins over its preset. Choices of a policy go by its kind.
"""

from collections.abc import Iterator, Mapping
from typing import Any

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {
        "reward": {"folds": "off"},  # [paper] knows no fold models: its scores are in-sample
        "scores": {"calibration": "zscore"},  # [RiC]
        "orchestrator": {
            "target": "chosen_softmax",
            "tau": 0.1,
            "loss": "reverse",
            "confidence": "off",
            "patience": "off",
        },  # [paper]
    },
    "recommended": {
        "reward": {"folds": 5},
        # Chosen on HH-RLHF, TruthfulQA and OASST1 (docs/results.md).
        "scores": {"calibration": "zscore"},
        "orchestrator": {
            "target": "advantage_softmax",
            "tau": "fit",
            "loss": "regress",
            "confidence": "report",
            "patience": 2,
        },
    },
}

POLICY_PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {
        "wic": {
            "tau": 0.1,  # [paper]
            "quality_quantile": 0.7,  # [RiC]
            "offline": {"responses": "all"},  # [paper] every response with its Eq. 7 weights
            "online": {
                "samples_per_prompt": 1,  # [RiC]
                "keep": "any_above_quantile",  # [RiC]
                "random_weight_share": 0.0,  # [paper] the weights are f(x)
            },
        },
    },
    "recommended": {
        "wic": {
            "tau": 1.0,
            "quality_quantile": 0.7,
            "offline": {"responses": "chosen_and_filtered"},
            "online": {"samples_per_prompt": 8, "keep": "best_by_weights", "random_weight_share": 0.35},
        },
    },
}


def overrides(preset: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """What a complete configuration, as JSON values, has otherwise than its preset, a line each."""
    found: list[str] = []
    for section, choices in PRESETS[preset].items():
        found += _differences(section, config[section], choices)
    for name, policy in config["policies"].items():
        found += _differences(f"policies.{name}", policy, POLICY_PRESETS[preset].get(policy["kind"], {}))
    return tuple(found)


def _differences(place: str, table: Mapping[str, Any], choices: Mapping[str, Any]) -> Iterator[str]:
    for key, choice in choices.items():
        value = table[key]
        if not isinstance(choice, dict):
            if value != choice:
                yield f"{place}.{key} = {value} (preset: {choice})"
        elif value is not None:  # a policy without online rounds has no table of them
            yield from _differences(f"{place}.{key}", value, choice)
