"""The chart's arguments are those that the program takes; the engine's are those of `preforch serve`."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from chart import container, merged, of_kind, read_values, render, value_sets
from preforch_models.bundle import read_bundle
from preforch_models.policy_card import PolicyCard, read_policy_card
from preforch_service import cli
from preforch_service.engine import arguments as engine_args
from preforch_service.engine.supervisor import EngineCommand
from preforch_service.keys import ApiKey, Keys, digest_of
from preforch_service.server import new_engine
from preforch_service.settings import ServeSettings
from preforch_service.telemetry.metrics import Metrics

KEYS = Keys(keys=(ApiKey(name="alice", sha256=digest_of("k" * 32)),))


def all_containers(kind: str) -> list[tuple[str, dict[str, Any]]]:
    """Every container of that name, with the name of its value set."""
    found = []
    for name in value_sets():
        for deployment in of_kind(render(read_values(name)), "Deployment"):
            spec = deployment["spec"]["template"]["spec"]
            for each in [*spec.get("initContainers", []), *spec["containers"]]:
                if each["name"] == kind:
                    found.append((name, each))
    return found


def parsed(gateway: dict[str, Any]) -> dict[str, Any]:
    """What `preforch serve` understands."""
    assert gateway["command"] == ["preforch", "serve"]
    parser = argparse.ArgumentParser(exit_on_error=False)
    cli.add_arguments(parser)
    return vars(parser.parse_args(gateway["args"]))


@pytest.mark.parametrize(("name", "gateway"), all_containers("gateway"))
def test_the_gateway_takes_its_arguments_and_means_the_values(name: str, gateway: dict[str, Any]) -> None:
    given = parsed(gateway)
    values = merged(name)
    keys = KEYS if given.pop("api_keys", None) else Keys()
    file = given.pop("presets", None)
    presets = None if file is None else str(file)
    mounts = {mount["mountPath"] for mount in gateway["volumeMounts"]}
    assert ("/presets" in mounts) == (file is not None)
    settings = ServeSettings.model_validate({**given, "keys": keys})
    theirs = values["gateway"]
    assert settings.drain_timeout == values["drainSeconds"]
    assert settings.no_auth == values["auth"]["disabled"] != bool(keys.keys)
    assert settings.weights_only == (values["mode"] == "weightsOnly")
    assert (settings.host, settings.metrics_host) == (values["bindAddress"], values["bindAddress"])
    assert (settings.port, settings.metrics_at) == (theirs["port"], theirs["metricsPort"])
    assert settings.served_model_name == (values["servedModelName"] or None)
    assert settings.orchestrator_threads == theirs["orchestratorThreads"]
    for same in ("device", "precision"):
        assert getattr(settings, same) == theirs[same]
    assert settings.log_format == theirs["logFormat"]
    assert settings.min_confidence == theirs["minConfidence"]
    assert presets == ("/presets/presets.toml" if theirs["presetsConfigMap"] else None)
    assert list(settings.cors_origins) == theirs["corsOrigins"]
    assert settings.otlp_endpoint == (theirs["otlpEndpoint"] or None)
    assert set(theirs["allowedHosts"]) <= set(settings.allowed_hosts)
    assert (
        "rel-preference-orchestrator-gateway.pro.svc" in settings.allowed_hosts or values["fullnameOverride"]
    )
    if not settings.weights_only:
        assert settings.policy_card is not None
        assert (settings.max_running, settings.max_waiting) == (theirs["maxRunning"], theirs["maxWaiting"])
        assert settings.first_byte_timeout == theirs["firstByteSeconds"]


def test_what_passes_an_ingress_is_answered() -> None:
    given = dict(all_containers("gateway"))
    assert {"pro.example", "pro.internal"} <= set(parsed(given["external-archive"])["allowed_hosts"])
    assert "pro.example" in parsed(given["external-httproute"])["allowed_hosts"]


def test_the_gateway_asks_the_engines_service() -> None:
    for name, gateway in all_containers("gateway"):
        upstreams = parsed(gateway).get("upstreams", [])
        manifests = render(read_values(name))
        services = {
            f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
            for service in of_kind(manifests, "Service")
        }
        match merged(name)["mode"]:
            case "split":
                assert set(upstreams) <= services
            case "external":
                assert upstreams == read_values(name)["gateway"]["upstreams"]
            case "allInOne":
                assert upstreams == ["http://127.0.0.1:8100"]
            case _:
                assert upstreams == []


def engine_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(exit_on_error=False)
    engine_args.add_arguments(parser)
    return parser


@pytest.mark.parametrize(("name", "made"), all_containers("engine-args"))
def test_the_engines_arguments_are_made_as_the_values_say(name: str, made: dict[str, Any]) -> None:
    assert made["command"] == ["preforch", "engine-args"]
    given = engine_parser().parse_args(made["args"])
    values = merged(name)
    assert given.cpu == (values["engine"]["accelerator"] == "cpu")
    assert given.port == values["engine"]["port"]
    assert given.host == ("127.0.0.1" if values["mode"] == "allInOne" else values["bindAddress"])
    assert f"--shutdown-timeout={values['drainSeconds']}" in given.engine_args
    assert (
        given.engine_args[-len(values["engine"]["extraArgs"]) or len(given.engine_args) :]
        == (values["engine"]["extraArgs"])
    )
    parsers = ("tool_call_parser", "toolCallParser"), ("reasoning_parser", "reasoningParser")
    for ours, theirs in parsers:
        assert getattr(given, ours, "") == values["engine"][theirs]
    gpus = 1 if given.cpu else values["engine"]["gpu"]["count"]
    assert (f"--tensor-parallel-size={gpus}" in given.engine_args) == (gpus > 1)


@pytest.mark.parametrize(("name", "engine"), all_containers("engine"))
def test_the_engine_has_the_variables_of_one_that_preforch_starts(
    name: str, engine: dict[str, Any], run_folder: Path
) -> None:
    cpu = merged(name)["engine"]["accelerator"] == "cpu"
    card = read_policy_card(run_folder / "policy" / "wic" / "round-0")
    wanted = command_of(run_folder, card, cpu=cpu).variables()
    given = {variable["name"]: variable.get("value") for variable in engine["env"]}
    assert ("OMP_NUM_THREADS" in given) == cpu
    ours = {"HOME", "USER", "OMP_NUM_THREADS"} | {
        variable["name"] for variable in merged(name)["engine"]["extraEnv"]
    }
    assert {name: value for name, value in given.items() if name not in ours} == wanted


def command_of(run: Path, card: PolicyCard, *, cpu: bool) -> EngineCommand:
    return EngineCommand(run, card, "tiny", (), {}, cpu=cpu)


def test_engine_args_are_those_that_preforch_serve_gives_its_own_engine(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, output = run_folder / "policy" / "wic" / "round-0", tmp_path / "arguments.json"
    given = [
        "--policy",
        str(policy),
        "--cpu",
        "--engine-arg=--seed=7",
        "--output",
        str(output),
        "--port",
        "8111",
    ]
    assert engine_args.run(engine_parser().parse_args([str(run_folder / "bundle"), *given])) == 0
    made = json.loads(output.read_text(encoding="utf-8"))
    assert json.loads(capsys.readouterr().out) == made

    settings = ServeSettings(path=run_folder / "bundle", policy=policy, engine_args=("--seed=7",))
    bundle, card = read_bundle(run_folder / "bundle"), read_policy_card(policy)
    own = new_engine(settings, bundle, card, policy, tmp_path, Metrics())
    listen = ["--uds", str(tmp_path / "engine.sock")]
    start = own.command.index("--uds")
    assert own.command[start : start + 2] == listen
    expected = [*own.command[1:start], "--host", "127.0.0.1", "--port", "8111", *own.command[start + 2 :]]
    assert made == expected


def test_engine_args_refuses_a_policy_that_is_not_of_the_bundle(run_folder: Path, tmp_path: Path) -> None:
    other = tiny.write_bundle(tmp_path / "bundle", encoding="levels")
    arguments = [str(other), "--policy", str(run_folder / "policy" / "wic" / "round-0")]
    with pytest.raises(ValueError, match="do not belong together"):
        engine_args.run(engine_parser().parse_args(arguments))


def test_the_hub_tool_of_the_image_knows_the_options_of_the_chart() -> None:
    from huggingface_hub.cli.download import download

    script = container_script("split-autoscaled", "fetch-policy")
    options = {word.lstrip("-").replace("-", "_") for word in script.split() if word.startswith("--")}
    assert options <= set(download.__annotations__), options


def container_script(name: str, kind: str) -> str:
    deployment = next(
        d
        for d in of_kind(render(read_values(name)), "Deployment")
        if d["metadata"]["name"].endswith("engine")
    )
    script: str = container(deployment["spec"]["template"], kind)["args"][0]
    return script
