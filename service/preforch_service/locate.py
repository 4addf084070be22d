"""Finds bundle and policy in a run folder."""

import re
from pathlib import Path

from preforch_models.manifest import ArtifactError
from preforch_models.policy_card import CARD_FILE

_ROUND = re.compile(r"round-(\d+)\Z")


def find_bundle(path: Path) -> Path:
    """The bundle of a run, or the path itself when it is a bundle."""
    if not path.is_dir():
        raise ArtifactError(f"{path}: no such folder; a run or a bundle is needed")
    return path / "bundle" if (path / "bundle").is_dir() else path


def rounds(run: Path) -> dict[str, list[Path]]:
    """Finished rounds of every policy of a run, oldest first. `policy/base` is not one."""
    found: dict[str, list[tuple[int, Path]]] = {}
    for card in run.glob(f"policy/*/round-*/{CARD_FILE}"):
        match = _ROUND.match(card.parent.name)
        if match and card.parent.parent.name != "base":
            found.setdefault(card.parent.parent.name, []).append((int(match.group(1)), card.parent))
    return {name: [folder for _, folder in sorted(folders)] for name, folders in sorted(found.items())}


def find_policy(run: Path) -> Path:
    """The newest round of the only policy of a run. Raises ArtifactError when there is none, or several."""
    found = rounds(run)
    if not found:
        raise ArtifactError(f"{run}: no policy/*/round-*/{CARD_FILE} in it; train a policy, or use --weights-only")
    if len(found) > 1:
        raise ArtifactError(
            f"{run}: holds several policies, choose with --policy: {[str(f[-1]) for f in found.values()]}"
        )
    (folders,) = found.values()
    return folders[-1]
