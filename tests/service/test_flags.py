"""The flags of `preforch serve` are the fields of its settings: names, defaults and words."""

import argparse
import re
from pathlib import Path
from typing import Any, Literal

import pytest
from preforch_service.cli import add_arguments
from preforch_service.flags import Metavar, add_flags
from preforch_service.settings import ServeSettings
from pydantic import BaseModel, Field

# Scripts, the chart and the compose file rely on these.
FLAGS = """
--upstream --policy-card --weights-only --policy --served-model-name --host --port --metrics-port
--metrics-host --api-keys --no-auth --cors-origin --allowed-host --device --orchestrator-threads --precision
--orchestrator-deadline --orchestrator-queue --batch-tokens --cache-entries --control-tokens --template-kwarg
--log-format --access-log --no-access-log --otlp-endpoint --max-header-bytes --max-body-bytes
--receive-timeout --max-depth --max-values --max-messages --max-characters --max-inputs --max-n --max-tokens
--max-stop --max-running --max-waiting --max-weights --first-byte-timeout --idle-timeout --health-timeout
--hang-timeout --unknown-fields --max-prompts --drain-timeout --engine-arg --engine-log --sse-keep-alive
--min-confidence --presets --tool-call-parser
--reasoning-parser
"""


def parser_of_serve() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    return parser


def actions() -> dict[str, argparse.Action]:
    """The flags of serve by the setting that they make."""
    return {action.dest: action for action in parser_of_serve()._actions if action.dest != "help"}


def test_every_setting_has_a_flag_and_no_flag_is_lost() -> None:
    assert actions().keys() == ServeSettings.model_fields.keys() - {"keys"} | {"api_keys"}
    assert set(FLAGS.split()) <= {flag for action in actions().values() for flag in action.option_strings}


def test_every_flag_says_what_it_is_and_what_its_default_is() -> None:
    said = " ".join(parser_of_serve().format_help().split())
    for name, action in actions().items():
        assert action.help, name
        default = ServeSettings.model_fields[name].default if name != "api_keys" else None
        if isinstance(default, str | int | float) and not isinstance(default, bool):
            shown = f"default {default:g}" if isinstance(default, float) else f"default {default}"
            assert shown in action.help, name
            assert f"{action.option_strings[0]} " in said
    assert "--access-log, --no-access-log one line per request; default on" in said


def test_a_flag_that_is_left_out_sets_nothing() -> None:
    assert vars(parser_of_serve().parse_args(["run"])) == {"path": Path("run")}


def test_values_have_the_types_of_their_settings() -> None:
    given = "run --port 0 --idle-timeout 2 --no-access-log --weights-only --device cpu --engine-log e.log"
    repeated = ["--engine-arg=--one", "--engine-arg=--two"]
    settings = ServeSettings.model_validate(vars(parser_of_serve().parse_args([*given.split(), *repeated])))
    assert (settings.port, settings.idle_timeout, settings.access_log) == (0, 2.0, False)
    assert (settings.weights_only, settings.device, settings.engine_log) == (True, "cpu", Path("e.log"))
    assert settings.engine_args == ("--one", "--two")


@pytest.mark.parametrize("wrong", ["--port x", "--device tpu", "--idle-timeout soon"])
def test_a_value_of_another_type_is_refused(wrong: str) -> None:
    with pytest.raises(argparse.ArgumentError):
        parser_of_serve().parse_args(["run", *wrong.split()])


class Made(BaseModel):
    """One field of each kind that a flag can hold."""

    size: int = Field(default=0, description="100% of it")
    seconds: float | None = None
    kind: Literal["a", "b"] = "a"
    names: tuple[str, ...] = ()
    address: str = "x"
    quiet: bool = True


class Held(BaseModel):
    """A field that no flag can hold."""

    table: dict[str, Any] = {}


def test_a_new_setting_becomes_a_flag_by_itself_or_an_error() -> None:
    parser = argparse.ArgumentParser(prog="x")
    add_flags(parser.add_argument, Made.model_fields)
    said = re.sub(r"\s+", " ", parser.format_help().partition("options:")[2])
    for line in ("--size N 100% of it; default 0", "--seconds S ", "--kind {a,b} default a", "--name NAME "):
        assert line in said
    assert "--address ADDRESS default x" in said
    assert "--quiet, --no-quiet default on" in said
    with pytest.raises(TypeError, match="table: no flag can hold dict"):
        add_flags(parser.add_argument, Held.model_fields)


def test_an_annotation_names_the_value() -> None:
    assert Metavar("RUN|BUNDLE") in ServeSettings.model_fields["path"].metadata
    assert actions()["path"].metavar == "RUN|BUNDLE"
    assert actions()["upstreams"].metavar == "URL"
