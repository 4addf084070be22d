"""Tiny but real parts: a bundle (BERT, ONNX, tokenizer, golden answers) and a policy (Qwen2, context tokens).

In:  an empty folder. Out: a run folder that `preforch serve` takes, made in seconds, the same every time.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from preforch_models.bundle import ONNX_FILE, TOKENIZER_FILE, BundleInfo, Golden, write_bundle_files
from preforch_models.calibration import Calibration, Constants
from preforch_models.conditioning.context import ContextConditioning
from preforch_models.conditioning.fixed import FixedConditioning
from preforch_models.conditioning.members import Member, MembersConditioning
from preforch_models.conditioning.mixture import MixedPolicy, MixtureConditioning
from preforch_models.context import ContextFormat, Encoding, chat_template
from preforch_models.conversation import Message, conversation_text
from preforch_models.manifest import Manifest, write_manifest, writing
from preforch_models.objectives import Objective, names_of
from preforch_models.orchestrator_model import OrchestratorConfig, OrchestratorModel
from preforch_models.policy_card import CARD_FILE, read_policy_card
from preforch_models.run_folder import RunInfo, write_run_info
from preforch_models.weights import normalise
from preforch_training.bundle.onnx_export import OPSET, export_onnx
from preforch_training.policy.base_model import add_context, new_model, train_tokenizer
from preforch_training.policy.checkpoint import PolicyInfo, save_policy
from preforch_training.policy.config import Scratch
from preforch_training.policy.tokenizer import load_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, BertConfig

TEXTS = (
    "How do I repair a bicycle tyre at home?",
    "Tell me a joke about a penguin.",
    "I feel sad today, what should I do?",
    "Which weights do you read?",
    "The quick brown fox jumps over the lazy dog 0123456789.",
)
OBJECTIVES = (
    Objective(name="helpful", description="serves what was asked"),
    Objective(name="harmless", description="does no damage", low=0.1),
    Objective(name="humor", description="is funny", high=0.8),
)
MAX_TOKENS = 32
MAX_MODEL_LEN = 256


def encoder_tokenizer() -> Tokenizer:
    """A word-piece tokenizer of the words and letters of TEXTS; `[PAD]` is 0.

    It is not trained, which would number its pieces by chance.
    """
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = sorted({word for text in TEXTS for word in text.split()})
    letters = sorted(set("".join(words)))
    pieces = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *words])
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(special)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def orchestrator(
    names: tuple[str, ...], vocabulary: int, *, seed: int = 0, width: int = 16
) -> OrchestratorModel:
    """A random orchestrator whose weights differ visibly from prompt to prompt."""
    encoder = BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=MAX_TOKENS,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = OrchestratorModel(
            OrchestratorConfig(
                encoder=encoder.to_diff_dict() | {"model_type": "bert"},
                objectives=list(names),
                max_tokens=MAX_TOKENS,
            )
        )
        torch.nn.init.normal_(model.head.weight, std=0.5)
    model.train(False)
    return model


@torch.no_grad()
def golden_answer(
    model: OrchestratorModel, tokenizer: Tokenizer, text: str, names: tuple[str, ...]
) -> Golden:
    """What the model itself says of a text."""
    messages = (Message(role="user", content=text),)
    ids = torch.tensor([tokenizer.encode(conversation_text(messages)).ids])
    weights_1K, confidence_1 = model.serve(ids, torch.ones_like(ids))
    return Golden(
        messages=messages, weights=normalise(weights_1K[0].tolist(), names), confidence=confidence_1.item()
    )


def write_bundle(
    target: Path,
    *,
    objectives: tuple[Objective, ...] = OBJECTIVES,
    encoding: Encoding = "digits",
    seed: int = 0,
    width: int = 16,
) -> Path:
    """A valid bundle."""
    names = names_of(objectives)
    tokenizer = encoder_tokenizer()
    model = orchestrator(names, tokenizer.get_vocab_size(), seed=seed, width=width)
    fallback = normalise(dict(zip(names, range(len(names), 0, -1), strict=True)), names)
    info = BundleInfo(
        objectives=objectives,
        context=ContextFormat(objectives=names, encoding=encoding),
        max_tokens=MAX_TOKENS,
        fallback=fallback,
        mean_weights=fallback,
        calibration=Calibration(method="none", constants={name: Constants() for name in names}),
        preset="recommended",
        onnx_difference=0.0,
        onnx_opset=OPSET,
    )
    with writing(target) as folder:
        tokenizer.save(str(folder / TOKENIZER_FILE))
        tokenizer.enable_truncation(MAX_TOKENS)
        export_onnx(model, folder / ONNX_FILE, max_tokens=MAX_TOKENS)
        write_bundle_files(folder, info, [golden_answer(model, tokenizer, text, names) for text in TEXTS])
        write_manifest(folder, Manifest(kind="bundle"))
    return target


# vLLM on CPU wants heads of 32 or more.
TINY = Scratch(vocabulary=300, width=32, layers=2, heads=1, inner=64)


def policy_info(name: str, kind: str = "wic") -> PolicyInfo:
    """What says how a policy was made."""
    return PolicyInfo(name=name, kind=kind, round=0)


def write_policy(
    target: Path,
    context_format: ContextFormat,
    *,
    name: str = "tiny",
    max_model_len: int = MAX_MODEL_LEN,
    size: Scratch = TINY,
) -> Path:
    """A random policy that vLLM serves."""
    tokenizer = train_tokenizer(TEXTS, vocabulary=size.vocabulary)
    model = new_model(len(tokenizer), size, max_model_len=max_model_len, seed=0)
    add_context(model, tokenizer, context_format, seed=0)
    with writing(target) as folder:
        save_policy(
            folder,
            model,
            tokenizer,
            policy_info(name),
            objectives=context_format.objectives,
            conditioning=ContextConditioning(encoding=context_format.encoding),
            max_model_len=max_model_len,
        )
        write_manifest(folder, Manifest(kind="policy"))
    return target


def write_fixed_policy(target: Path, objectives: tuple[str, ...], *, name: str = "tiny") -> Path:
    """A random policy that vLLM serves and that reads no weights, though its tokenizer knows their tokens."""
    tokenizer = train_tokenizer(TEXTS, vocabulary=TINY.vocabulary)
    model = new_model(len(tokenizer), TINY, max_model_len=MAX_MODEL_LEN, seed=0)
    context_format = ContextFormat(objectives=objectives)
    add_context(model, tokenizer, context_format, seed=0)
    tokenizer.chat_template = chat_template(None)
    with writing(target) as folder:
        save_policy(
            folder,
            model,
            tokenizer,
            policy_info(name, "sft"),
            objectives=objectives,
            conditioning=FixedConditioning(),
            max_model_len=MAX_MODEL_LEN,
        )
        write_manifest(folder, Manifest(kind="policy"))
    return target


def write_set(target: Path, objectives: tuple[str, ...], *, name: str = "soup") -> Path:
    """A random policy with two random adapters, for the first and for the last objective alone."""
    write_fixed_policy(target, objectives, name=name)
    ends = (objectives[0], objectives[-1])
    members = tuple(
        Member(name=f"{name}-{end}", weights={o: float(o == end) for o in objectives}) for end in ends
    )
    conditioning = MembersConditioning(rank=4, members=members)
    for seed, folder in enumerate(conditioning.adapters(target).values()):
        settings = LoraConfig(r=4, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(target), settings)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "lora_" in key:
                    parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        model.save_pretrained(folder)
    card = read_policy_card(target).model_copy(update={"conditioning": conditioning})
    (target / CARD_FILE).write_text(card.model_dump_json(), encoding="utf-8")
    write_manifest(target, Manifest(kind="policy"))
    return target


def write_mixture(target: Path, members: Mapping[str, Path], *, name: str = "mod") -> Path:
    """A policy that consists of others, by objective."""
    conditioning = MixtureConditioning(
        members={
            objective: MixedPolicy(
                folder=os.path.relpath(member, target), revision=read_policy_card(member).revision
            )
            for objective, member in members.items()
        }
    )
    with writing(target) as folder:
        save_policy(
            folder,
            None,
            load_tokenizer(next(iter(members.values()))),
            policy_info(name, "mod"),
            objectives=tuple(members),
            conditioning=conditioning,
            max_model_len=MAX_MODEL_LEN,
        )
        write_manifest(folder, Manifest(kind="policy"))
    return target


def write_run(target: Path) -> Path:
    """A run folder with a bundle and the policy `wic`, which is served."""
    bundle = write_bundle(target / "bundle")
    info = BundleInfo.model_validate(json.loads((bundle / "bundle.json").read_text(encoding="utf-8")))
    write_policy(target / "policy" / "wic" / "round-0", info.context)
    write_run_info(target, RunInfo(serve="wic"))
    return target
