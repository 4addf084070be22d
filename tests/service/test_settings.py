"""Defaults that depend on other settings."""

from pathlib import Path

import pytest
from preforch_service.settings import ServeSettings
from pydantic import ValidationError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, 8001),
        ({"port": 9000}, 9001),
        ({"port": 0}, 0),
        ({"port": 9000, "metrics_port": 0}, 0),
        ({"port": 0, "metrics_port": 9009}, 9009),
    ],
)
def test_metrics_are_on_the_next_port_unless_told_otherwise(given: dict[str, int], expected: int) -> None:
    assert ServeSettings.model_validate({"path": Path("run"), **given}).metrics_at == expected


def test_the_last_port_wants_a_metrics_port() -> None:
    with pytest.raises(ValidationError, match="--metrics-port"):
        ServeSettings(path=Path("run"), port=65535)
    assert ServeSettings(path=Path("run"), port=65535, metrics_port=0).metrics_at == 0


def test_a_collector_has_an_http_url() -> None:
    with pytest.raises(ValidationError, match="otlp_endpoint must be an http"):
        ServeSettings(path=Path("run"), otlp_endpoint="collector:4318")


@pytest.mark.parametrize("name", ["tool_call_parser", "reasoning_parser"])
def test_parsers_are_for_an_engine_of_our_own(name: str) -> None:
    for given in ({"weights_only": True}, {"upstreams": ("http://x",), "policy_card": Path("c.json")}):
        flag = name.replace("_", "-")
        with pytest.raises(
            ValidationError, match=f"{name} is for an engine that the gateway.*args --{flag} NAME"
        ):
            ServeSettings.model_validate({"path": Path("run"), name: "hermes", **given})


@pytest.mark.parametrize(
    "given",
    [
        {"policy": Path("folder")},
        {"weights_only": True},
        {"upstreams": ("http://x",), "policy_card": Path("preference.json")},
    ],
)
def test_a_name_chooses_among_the_policies_of_a_run_alone(given: dict[str, object]) -> None:
    ServeSettings.model_validate({"path": Path("run"), **given})
    with pytest.raises(ValidationError, match="policy_name chooses among a run's policies"):
        ServeSettings.model_validate({"path": Path("run"), "policy_name": "wic", **given})
