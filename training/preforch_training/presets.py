"""The two presets: method choices by config section. Everything else in a config is size, place or hardware.

`paper`: arXiv 2511.10656, its gaps filled from RiC (2402.10207). `recommended`: what our measurements favour
(docs/results.md). A key that a config file gives wins over its preset. Choices of a policy go by its kind.
"""

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
            "offline": {"responses": "all"},  # [paper] every response with its Eq. 7 weights
            "online": {
                "samples_per_prompt": 1,  # [RiC]
                "keep": "any_above_quantile",  # [RiC] 0.7 quantile
                "random_weight_share": 0.0,  # [paper] the weights are f(x)
            },
        },
    },
    "recommended": {
        "wic": {
            "tau": 1.0,
            "offline": {"responses": "chosen_and_filtered"},
            "online": {"samples_per_prompt": 8, "keep": "best_by_weights", "random_weight_share": 0.35},
        },
    },
}
