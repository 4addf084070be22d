"""Model cards: `README.md` in rewards, orchestrator, policy rounds and bundle, as hubs show it.

In:  an artifact of a run, the run's configuration.
Out: YAML metadata, then objectives, data, recipe, training, results, use, limits, licences, origin.

A card is about an artifact and no part of it (`preforch_models.manifest`): it is written again when more is
known, above all the numbers of a report, which are given where the report read this very artifact. No path,
host name or URL of a reward goes into it.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from preforch_models.conditioning import Conditioning
from preforch_models.manifest import MANIFEST, MODEL_CARD, Manifest, digest, read_manifest
from preforch_models.policy_card import CARD_FILE, read_policy_card

from preforch_training.config import RunConfig
from preforch_training.publishing.texts import LIMITS, SUBJECTS, Subject
from preforch_training.statistics.markdown import table

_PLACES = ("reward/*", "orchestrator", "policy/*/round-*", "bundle")
_NOT_SAID = {"origin", "objectives", "name", "seed", "speed_ratio"}
"""Of recipe and metrics: said elsewhere in the card, or different each time."""
_DIGEST = re.compile("[0-9a-f]{64}")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class CardSource:
    """What a card is made from. `label`: the artifact's place in its run."""

    run: Path
    config: RunConfig
    label: str
    manifest: Manifest

    @property
    def folder(self) -> Path:
        """The artifact."""
        return self.run / self.label

    @property
    def subject(self) -> Subject:
        """What cards of its kind say."""
        return SUBJECTS[self.manifest.kind]

    @property
    def title(self) -> str:
        """Run and place."""
        return f"{self.run.resolve().name}: {self.label}"


def write_cards(run: Path, config: RunConfig) -> None:
    """Write the card of every finished artifact that has one, where it says something new."""
    for place in _PLACES:
        for manifest in sorted(run.glob(f"{place}/{MANIFEST}")):
            folder = manifest.parent
            text = render_card(run, config, folder.relative_to(run).as_posix())
            card = folder / MODEL_CARD
            if card.is_file() and card.read_text(encoding="utf-8") == text:
                continue
            # Beside the artifact, where a kill leaves nothing that its manifest does not list.
            temporary = folder.with_name(f".{folder.name}.card")
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(card)


def render_card(run: Path, config: RunConfig, label: str) -> str:
    """The card of one artifact. Raises ArtifactError where it is not finished."""
    source = CardSource(run, config, label, read_manifest(run / label))
    parts = [
        f"---\n{_metadata(source).to_yaml()}\n---",
        f"# {source.title}",
        source.subject.summary,
        _objectives(source),
        _data(source),
        _recipe(source),
        _training(source),
        _results(source),
        f"## Use\n\n{_use(source)}",
        _limits(source),
        _licences(source),
        _origin(source),
    ]
    return "\n\n".join(parts) + "\n"


def render_run_card(run: Path, config: RunConfig, labels: Sequence[str]) -> str:
    """The card of a repository that holds several artifacts of a run: the last one's, and where the others
    are."""
    rows = [
        (f"[`{label}`]({label}/{MODEL_CARD})", SUBJECTS[read_manifest(run / label).kind].summary)
        for label in labels
    ]
    text = render_card(run, config, labels[-1])
    title = f"# {CardSource(run, config, labels[-1], read_manifest(run / labels[-1])).title}\n"
    whole = f"# {run.resolve().name}\n\n" + table(["artifact", "what it is"], rows)
    return text.replace(title, f"{whole}\n\n# {labels[-1]}\n", 1)


def _metadata(source: CardSource) -> ModelCardData:
    card, subject = source.config.card, source.subject
    base = _base(source)
    return ModelCardData(
        language=list(card.languages) or None,
        license=card.licence,
        license_name=card.licence_name or None,
        license_link=card.licence_link or None,
        library_name=subject.library,
        pipeline_tag=subject.task,
        base_model=base if "/" in base else None,
        datasets=_hub_datasets(source.config) or None,
        tags=["preference-orchestrator", "multi-objective-alignment", *subject.tags],
    )


def _base(source: CardSource) -> str:
    """The hub id of the model that training started from, or words that say what it was."""
    untrained = source.manifest.config.get("untrained")
    if untrained is not None:
        return f"{untrained}, which is as it was"
    made = {"policy": "policy/base", "bundle": "orchestrator"}.get(source.manifest.kind, source.label)
    origin = ""
    if (source.run / made / MANIFEST).is_file():
        origin = str(read_manifest(source.run / made).config.get("origin", ""))
    if _DIGEST.fullmatch(origin):
        return f"a local folder (digest of its files {origin[:16]})"
    return origin if "/" in origin else "nothing, or no model that has a name"


def _hub_datasets(config: RunConfig) -> list[str]:
    """A dataset can also be a folder of this machine, whose path is nobody's business."""
    names = {source.dataset for source in config.data.sources if source.dataset}
    return sorted(name for name in names if _is_hub_id(name))


def _objectives(source: CardSource) -> str:
    rows = [
        (o.name, o.description.replace("|", "\\|"), f"{o.low:g}", f"{o.high:g}")
        for o in source.config.objectives
    ]
    return "## Objectives\n\n" + table(["objective", "what it is", "weight from", "to"], rows)


def _data(source: CardSource) -> str:
    data = source.config.data
    files = sum(entry.dataset is None or not _is_hub_id(entry.dataset) for entry in data.sources)
    named = [f"`{name}`" for name in _hub_datasets(source.config)]
    if data.world is not None:
        named = [f"the {data.world} world, which is generated"]
    elif files:
        named.append(f"{files} local source{'s' if files > 1 else ''}")
    lines = ["## Data", f"From {', '.join(named)}. Splits are by prompt: none is on two sides."]
    if (source.run / "data" / MANIFEST).is_file():
        lines.append(_numbers(read_manifest(source.run / "data").counts, head="records"))
    return "\n\n".join(lines)


def _recipe(source: CardSource) -> str:
    recipe = dict(_flat(source.manifest.config))
    if source.manifest.kind == "bundle" and (source.run / "orchestrator" / MANIFEST).is_file():
        fitted = read_manifest(source.run / "orchestrator").config
        recipe |= {f"orchestrator.{key}": value for key, value in _flat(fitted)}
    rows = [(f"`{key}`", f"`{value}`") for key, value in recipe.items()]
    others = "; ".join(source.config.overrides) or "nothing"
    head = f"Preset `{source.config.preset}`, otherwise {others}; seed {source.config.run.seed}."
    return f"## Recipe\n\n{head} Started from: {_base(source)}.\n\n" + table(["setting", "value"], rows)


def _training(source: CardSource) -> str:
    numbers = {**source.manifest.counts, **dict(_flat(source.manifest.metrics))}
    return "## Training\n\n" + _numbers(numbers, head="number")


def _results(source: CardSource) -> str:
    """What a report says that read this very artifact."""
    folder = source.run / "report"
    if not (folder / MANIFEST).is_file() or read_manifest(folder).inputs.get(source.label) != digest(
        source.manifest.files
    ):
        return "## Results\n\nNot measured: no report of the run has read this artifact."
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    rows = [
        (v["name"], _measured(v), v["target"], "yes" if v["reached"] else "no") for v in report["verdicts"]
    ]
    text = "## Results\n\nOf the run, on held-out prompts, with 95% intervals where there are any.\n\n"
    text += table(["measure", "value", "target", "reached"], rows)
    return text + "".join(f"\n\n* {warning}" for warning in report["warnings"])


def _measured(verdict: Mapping[str, Any]) -> str:
    if verdict["value"] is None:
        return "none"
    interval = verdict["interval"]
    ends = f" [{interval['low']:.3g}, {interval['high']:.3g}]" if interval else ""
    return f"{verdict['value']:.3g}{ends}"


def _use(source: CardSource) -> str:
    conditioning = _conditioning(source)
    if conditioning is None or conditioning.unservable is None:
        return source.subject.use
    return (
        f"Stage `report` of `preforch train` draws from it. It cannot be served: {conditioning.unservable}."
    )


def _conditioning(source: CardSource) -> Conditioning | None:
    """Of a policy; None for other artifacts."""
    is_policy = (source.folder / CARD_FILE).is_file()
    return read_policy_card(source.folder).conditioning if is_policy else None


def _limits(source: CardSource) -> str:
    lines = [*source.subject.limits, *LIMITS]
    conditioning = _conditioning(source)
    if conditioning is not None and not conditioning.reads_weights:
        lines.insert(0, "This policy reads no weights: what they mean was fixed in training.")
    return "## Intended use and limits\n\n" + "\n".join(f"* {line}" for line in lines)


def _licences(source: CardSource) -> str:
    card = source.config.card
    own = card.licence_name or card.licence
    link = f" ({card.licence_link})" if card.licence_link else ""
    unknown = "\n\n`unknown` means that whoever trained this has not said it; ask before you use it."
    rows = [
        ("this model", own + link),
        ("the model it started from", card.base_model_licence),
        ("the data", card.data_licence),
    ]
    text = "## Licences\n\n" + table(["of", "licence"], rows)
    return text + (unknown if "unknown" in (own, card.base_model_licence, card.data_licence) else "")


def _origin(source: CardSource) -> str:
    rows = [("kind", source.manifest.kind), ("digest of its files", digest(source.manifest.files)[:16])]
    rows += [(f"made from `{name}`", found[:16]) for name, found in source.manifest.inputs.items()]
    rows += [(f"`{name}`", found) for name, found in source.manifest.versions.items()]
    return "## Origin\n\nMade by Preference Orchestrator (PRO).\n\n" + table(["what", "which"], rows)


def _numbers(numbers: Mapping[str, Any], *, head: str) -> str:
    shown = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in numbers.items()}
    return table([head, "value"], [(f"`{key}`", value) for key, value in shown.items()])


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """`{"a": {"b": 1}}` as `a.b`, 1; lists as one value. Nothing of this machine is left in it."""
    for key, entry in value.items():
        if key in _NOT_SAID:
            continue
        if isinstance(entry, Mapping):
            yield from _flat(entry, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _public(entry)


def _public(value: Any) -> Any:
    """A value without paths and URLs."""
    if isinstance(value, list):
        return json.dumps([dict(_flat(e)) if isinstance(e, Mapping) else _public(e) for e in value])
    if not isinstance(value, str):
        return value
    if "://" in value:
        return "(a URL)"
    if "/" in value or "\\" in value or value.startswith("~"):
        return value if _is_hub_id(value) else "(a local path)"
    return value


def _is_hub_id(name: str) -> bool:
    return _HUB_ID.fullmatch(name) is not None and not Path(name).exists()
