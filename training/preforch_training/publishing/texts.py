"""What the cards of each kind of artifact say: what it is, how it is used, what it is not for."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Subject:
    """`library`, `task` and `tags` are the hub's words."""

    summary: str
    use: str
    limits: tuple[str, ...]
    library: str | None = None
    task: str | None = None
    tags: tuple[str, ...] = ()


_SERVE = "`preforch serve hf:ORG/NAME@COMMIT` serves it from a hub, `preforch serve FOLDER` from a folder"
_NO_ANSWER = "It recommends weights; it does not answer, and it does not judge whether a prompt is safe."

LIMITS = (
    "An objective is what its reward model measures, no more: a high weight for harmlessness is not a "
    "guarantee that an answer does no harm.",
    "What was learned holds for prompts like those of the data, in their languages; what is unfair in the "
    "preferences of the people who gave them is in here too.",
    "It was not tested for decisions about people's health, rights or money; test it on your own prompts.",
)

SUBJECTS: Mapping[str, Subject] = MappingProxyType(
    {
        "reward": Subject(
            summary="A reward model: how well a response serves one objective, as a number that means "
            "something only beside others to the same prompt. Fold models in `folds/` have not seen their "
            "share of the training prompts.",
            use="Stage `scores` of `preforch train` reads it.",
            limits=("For training and for comparing responses, not for showing a number to anybody.",),
            task="text-classification",
            tags=("reward-model",),
        ),
        "orchestrator": Subject(
            summary="An orchestrator f(x): it reads a prompt and recommends how much each objective should "
            "count. This is the checkpoint that training left; the bundle made from it is what is served.",
            use="`preforch_models.orchestrator_model.OrchestratorModel.from_pretrained(FOLDER)`.",
            limits=(_NO_ANSWER,),
            task="text-classification",
        ),
        "policy": Subject(
            summary="A policy: a language model that answers prompts. Its card for the gateway, "
            "`preference.json`, says whether and how it reads the weights of the objectives.",
            use=f"{_SERVE}, where it lies in a run; else `preforch serve BUNDLE --policy FOLDER`. "
            "In vLLM or transformers alone, the chat template wants `weights`, objective by objective, where "
            "the policy reads them from its context.",
            limits=("Answers can be wrong or harmful under any weights; check what is shown to people.",),
            library="transformers",
            task="text-generation",
        ),
        "bundle": Subject(
            summary="An orchestrator as the gateway loads it: ONNX, tokenizer, golden answers, fallback "
            "weights. It reads a prompt and recommends how much each objective should count.",
            use=f"{_SERVE}, with `--weights-only`, or with a policy made in the same run.",
            limits=(_NO_ANSWER, "`golden.jsonl` holds some prompts of the data."),
            library="onnx",
            task="text-classification",
        ),
    }
)
