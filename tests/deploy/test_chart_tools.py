"""The chart under tools besides Python: Helm's command, the schemas of custom resources, a scan of policies.

The published schemas of ServiceMonitor, PodMonitor, PrometheusRule, ScaledObject and HTTPRoute come from the
npm packages @kubernetes-models/*, which are generated from the projects' CRDs: TypeScript's types know every
field (and refuse others), `validate()` knows patterns, limits and words.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from chart import CHART, ROOT, VALUES, Manifest, read_values, render, value_sets

pytestmark = pytest.mark.deploy

GUIDE = ROOT / "docs" / "kubernetes.md"
SKIPPED = Path(__file__).with_name("policy_scan.yaml")
NEWEST = "1.37.0"
MODELS = {
    "ServiceMonitor": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor",
    "PodMonitor": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor",
    "PrometheusRule": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule",
    "ScaledObject": "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject",
    "HTTPRoute": "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/HTTPRoute",
}
each_value_set = pytest.mark.parametrize("name", value_sets())


def tool(name: str) -> Path:
    """A program, or a failure that names it."""
    found = shutil.which(name)
    assert found, f"{name} is missing: run `make test-deploy`, which installs it"
    return Path(found)


def run(*command: object, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True, timeout=300)


@each_value_set
def test_helm_renders_what_its_library_renders(name: str) -> None:
    options = ["--namespace", "pro", "--kube-version", NEWEST, "--values", VALUES / f"{name}.yaml"]
    done = run(tool("helm"), "template", "rel", CHART, *options)
    assert done.returncode == 0, done.stderr
    by_command = [manifest for manifest in yaml.load_all(done.stdout, yaml.CSafeLoader) if manifest]
    assert sorted(map(json.dumps, by_command)) == sorted(map(json.dumps, render(read_values(name))))


@each_value_set
def test_helm_lint_is_clean(name: str) -> None:
    done = run(tool("helm"), "lint", "--strict", CHART, "--values", VALUES / f"{name}.yaml")
    assert done.returncode == 0, done.stdout


def test_helm_says_what_is_wrong() -> None:
    options = ["--values", VALUES / "split-gpu.yaml", "--set", "gateway.replica=3,bundle.pvc.claimName="]
    done = run(tool("helm"), "template", "rel", CHART, "--kube-version", NEWEST, *options)
    assert done.returncode != 0
    assert "replica is not allowed" in done.stderr
    assert "bundle.pvc.claimName: String length must be greater than or equal to 1" in done.stderr


def test_an_older_kubernetes_is_refused() -> None:
    options = ["--values", VALUES / "split-gpu.yaml", "--kube-version", "1.29.0"]
    assert "incompatible with Kubernetes" in run(tool("helm"), "template", "rel", CHART, *options).stderr


def blocks(language: str) -> list[str]:
    """The guide's blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)


def helm_commands() -> list[str]:
    """Every command of the guide that installs or upgrades, on one line."""
    text = "\n".join(blocks("bash")).replace("\\\n", " ")
    return [line for line in text.splitlines() if re.match(r"helm (install|upgrade|template|lint) ", line)]


def test_the_guide_has_commands() -> None:
    assert len(helm_commands()) >= 6


@pytest.mark.parametrize("command", helm_commands())
def test_a_command_of_the_guide_renders(command: str, tmp_path: Path) -> None:
    for name in ("helm", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    for block in blocks("yaml"):
        if title := re.match(r"# ([\w-]+\.yaml)\n", block):
            (tmp_path / title[1]).write_text(block, encoding="utf-8")
    words = re.sub(r"^helm (install|upgrade( --install)?)", "helm template", command).split()
    done = run(tool("helm"), *words[1:], "--kube-version", NEWEST, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "kind:" in done.stdout


def typescript(manifests: list[Manifest]) -> str:
    """A program that holds the manifests as literals of their types, and validates them."""
    imports = [f'import {{ {kind} }} from "{module}";' for kind, module in MODELS.items()]
    checks = [
        f"new {manifest['kind']}({json.dumps(without_kind(manifest))}).validate();" for manifest in manifests
    ]
    return "\n".join([*imports, *checks, 'console.log("valid");'])


def without_kind(manifest: Manifest) -> Manifest:
    return {key: value for key, value in manifest.items() if key not in ("apiVersion", "kind")}


def check_custom(manifests: list[Manifest], folder: Path) -> str:
    """What TypeScript and the validators say; "valid" where all is well."""
    compiler = tool("tsc")
    (folder / "node_modules").symlink_to(compiler.parent.parent)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "check.ts").write_text(typescript(manifests), encoding="utf-8")
    options = ["--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022"]
    compiled = run(compiler, *options, "check.ts", folder=folder)
    if compiled.returncode != 0:
        return compiled.stdout
    done = run(tool("node"), "check.js", folder=folder)
    return done.stdout.strip() or done.stderr


def custom_manifests() -> list[Manifest]:
    everything = [manifest for name in value_sets() for manifest in render(read_values(name))]
    return [manifest for manifest in everything if manifest["kind"] in MODELS]


def test_custom_resources_are_those_of_their_projects(tmp_path: Path) -> None:
    manifests = custom_manifests()
    assert {manifest["kind"] for manifest in manifests} == set(MODELS)
    versions = {manifest["apiVersion"] for manifest in manifests}
    assert versions == {"monitoring.coreos.com/v1", "keda.sh/v1alpha1", "gateway.networking.k8s.io/v1"}
    assert check_custom(manifests, tmp_path) == "valid"


@pytest.mark.parametrize(
    ("kind", "place", "wrong", "said"),
    [
        ("ScaledObject", "spec", {"minReplicaCont": 1}, "minReplicaCont"),
        ("ScaledObject", "spec", {"maxReplicaCount": "4"}, "'string' is not assignable to type 'number'"),
        ("HTTPRoute", "spec", {"hostnames": ["No Host"]}, "hostnames/0"),
        ("ServiceMonitor", "spec", {"selector": None}, "ILabelSelector"),
    ],
)
def test_a_wrong_custom_resource_fails(
    kind: str, place: str, wrong: Manifest, said: str, tmp_path: Path
) -> None:
    manifest = next(manifest for manifest in custom_manifests() if manifest["kind"] == kind)
    manifest[place] |= wrong
    assert said in check_custom([manifest], tmp_path)


def skipped() -> dict[str, str]:
    """Checks of the scan that do not hold here, with the reason."""
    reasons: dict[str, str] = yaml.safe_load(SKIPPED.read_text(encoding="utf-8"))
    return reasons


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """What checkov finds in all rendered manifests, the skipped checks included."""
    folder = tmp_path_factory.mktemp("manifests")
    for name in value_sets():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump_all(render(read_values(name))), encoding="utf-8")
    options = ["--framework", "kubernetes", "--output", "json", "--compact", "--quiet", "--skip-download"]
    done = run(tool("checkov"), "--directory", folder, *options)
    report = json.loads(done.stdout)
    assert report["summary"]["passed"] > 1000
    failed: list[dict[str, str]] = report["results"]["failed_checks"]
    return failed


def test_the_policy_scan_finds_nothing_without_a_reason(findings: list[dict[str, str]]) -> None:
    left = {(each["check_id"], each["check_name"], each["resource"]) for each in findings}
    assert {found for found in left if found[0] not in skipped()} == set()


def test_every_reason_is_needed(findings: list[dict[str, str]]) -> None:
    assert set(skipped()) <= {each["check_id"] for each in findings}
    assert all(len(reason) > 20 for reason in skipped().values())
