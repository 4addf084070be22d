"""What a run, a bundle or any artifact holds, as text for people."""

import json
from pathlib import Path

from preforch_models.bundle import BUNDLE_FILE, read_bundle
from preforch_models.manifest import MANIFEST, ArtifactError, Manifest, read_manifest, verify
from preforch_models.policy_card import CARD_FILE, read_policy_card
from preforch_models.run_folder import read_run_info
from preforch_models.weights import Weights

from preforch_training.data.report import DataReport, report_lines


def describe(path: Path) -> str:
    """Describe a run folder or an artifact. Raises ArtifactError when it is neither, or damaged."""
    if (path / MANIFEST).is_file():
        return describe_artifact(path)
    artifacts = sorted(
        (manifest.parent for manifest in path.rglob(MANIFEST) if not _hidden(manifest.relative_to(path))),
        key=lambda folder: (folder / MANIFEST).stat().st_mtime,
    )
    if not artifacts:
        raise ArtifactError(f"{path}: neither a run nor an artifact; no {MANIFEST} in it or below")
    info = read_run_info(path)
    title = f"artifacts in {path}"
    if info is not None:
        title = f"run {path}, " + (f"policy to serve: {info.serve}" if info.serve else "no policy to serve")
    lines = [title, "", f"{'artifact':<28} {'kind':<14} {'seconds':>8} {'peak MiB':>9}  numbers"]
    for folder in artifacts:
        manifest = read_manifest(folder)
        numbers = {
            **manifest.counts,
            **{k: v for k, v in manifest.metrics.items() if isinstance(v, int | float)},
        }
        shown = ", ".join(f"{key} {value:.4g}" for key, value in list(numbers.items())[:4])
        name = folder.relative_to(path).as_posix()
        lines.append(
            f"{name:<28} {manifest.kind:<14} {manifest.seconds:>8.0f} {manifest.peak_memory_mib:>9.0f}  "
            f"{shown}"
        )
    # Runs of before have no page.
    reports = [path / "report" / name for name in ("index.html", "report.md")]
    found = [f"report: {report}" for report in reports if report.is_file()]
    return "\n".join([*lines, "", *(found or ["no report yet"])])


def _hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def describe_artifact(folder: Path) -> str:
    """One artifact, every file verified."""
    manifest = verify(folder)
    lines = [f"{manifest.kind} {folder}: {len(manifest.files)} files, all hashes right", *_origin(manifest)]
    if manifest.kind == "data" and "report" in manifest.metrics:
        lines += report_lines(DataReport.model_validate(manifest.metrics["report"]))
    if (folder / BUNDLE_FILE).is_file():
        lines += _bundle_lines(folder)
    if (folder / CARD_FILE).is_file():
        card = read_policy_card(folder)
        lines += [
            f"policy {card.name}, revision {card.revision[:16]}, objectives {', '.join(card.objectives)}",
            f"conditioning {card.conditioning.model_dump_json()}",
            f"{len(card.control_strings)} control strings",
        ]
    return "\n".join(lines)


def _origin(manifest: Manifest) -> list[str]:
    """How it was made."""
    return [
        f"made in {manifest.seconds:.0f} s, peak memory {manifest.peak_memory_mib:.0f} MiB, "
        f"with {manifest.versions}",
        f"inputs: {', '.join(f'{name} {digest[:12]}' for name, digest in manifest.inputs.items()) or 'none'}",
        f"counts: {json.dumps(manifest.counts)}",
        # What the data are like is told in words.
        f"metrics: {json.dumps({k: v for k, v in manifest.metrics.items() if k != 'report'})}",
        f"config: {json.dumps(manifest.config)}",
    ]


def _bundle_lines(folder: Path) -> list[str]:
    """What a bundle recommends and from what."""
    bundle = read_bundle(folder)
    info = bundle.info
    return [
        f"bundle revision {bundle.revision}, preset {info.preset}, method {info.method}",
        *(
            f"  {o.name}: {o.description or '(no description)'}, weight {o.low} to {o.high}"
            for o in info.objectives
        ),
        f"fallback {_line(info.fallback)}; mean on training prompts {_line(info.mean_weights)}",
        f"context {info.context.encoding}; {info.max_tokens} tokens; {len(bundle.golden)} golden prompts",
        f"torch and ONNX differ by {info.onnx_difference:.1e}",
    ]


def _line(weights: Weights) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in weights.items())
