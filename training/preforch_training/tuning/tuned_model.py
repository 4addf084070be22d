"""Fine-tuning with LoRA or of all parameters, in little memory (`options.Tuning`), for every trainer here.

In:  a checkpoint, the settings.
Out: the numbers to load it in, arguments for the trainer, the LoRA configuration; after training the model
     with LoRA merged, in the numbers that are stored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel
from transformers import AutoConfig, PreTrainedModel, TrainingArguments

from preforch_training.tuning.options import SavedDtype, Tuning


def loading_dtype(settings: Tuning) -> torch.dtype | Literal["auto"]:
    """32-bit where all parameters are trained: steps of 1e-5 vanish in bfloat16. Frozen ones stay as they are
    stored, on a GPU; a CPU has no autocast here, and computes in what it loads."""
    return "auto" if settings.lora_rank and torch.cuda.is_available() else torch.float32


def stored_dtype(path: str, saved: SavedDtype, *, revision: str = "main") -> torch.dtype:
    """The numbers to store the result of a training from this checkpoint in."""
    if saved != "checkpoint":
        return getattr(torch, saved)  # type: ignore[no-any-return]
    dtype = AutoConfig.from_pretrained(path, revision=revision).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def device_arguments() -> dict[str, bool]:
    """Arguments of a trainer that depend on the machine."""
    on_gpu = torch.cuda.is_available()
    return {
        "use_cpu": not on_gpu,
        "bf16": on_gpu and torch.cuda.is_bf16_supported(),
        "dataloader_pin_memory": on_gpu,
    }


def memory_arguments(settings: Tuning) -> dict[str, Any]:
    """Arguments of a trainer that save memory. transformers 5.24 has a new name for one."""
    names = {field.name for field in fields(TrainingArguments)}
    checkpointing = next(
        name for name in ("activation_checkpointing", "gradient_checkpointing") if name in names
    )
    return {
        "gradient_accumulation_steps": settings.accumulation,
        checkpointing: settings.gradient_checkpointing,
        f"{checkpointing}_kwargs": {"use_reentrant": False} if settings.gradient_checkpointing else None,
    }


def save_memory(model: PreTrainedModel, settings: Tuning) -> None:
    """Checkpointing of a model inside another one, which no trainer sees."""
    if settings.gradient_checkpointing:
        new, old = "activation_checkpointing_enable", "gradient_checkpointing_enable"
        getattr(model, new if hasattr(model, new) else old)({"use_reentrant": False})


def lora_config(
    settings: Tuning,
    *,
    task: str | None,
    rows: Mapping[str, Sequence[int]] | None = None,
    whole: Sequence[str] = (),
) -> LoraConfig | None:
    """LoRA as the settings ask for it, or None. `rows`: trained rows of embedding modules; `whole`: modules
    that are trained themselves, a new head."""
    if not settings.lora_rank:
        return None
    targets = settings.lora_targets
    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        trainable_token_indices={name: list(ids) for name, ids in (rows or {}).items()} or None,
        modules_to_save=list(whole) or None,
        task_type=task,
    )


def name_of(module: torch.nn.Module, model: torch.nn.Module) -> str:
    """The name of a module inside a model."""
    names: list[str] = [name for name, each in model.named_modules() if each is module]
    return names[0]


def embedding_rows(model: PreTrainedModel, ids: Sequence[int]) -> dict[str, Sequence[int]]:
    """Rows of the input embeddings, and of the head where it is a matrix of its own, by module."""
    inputs, head = model.get_input_embeddings(), model.get_output_embeddings()
    modules = [inputs] if head.weight is inputs.weight else [inputs, head]
    return {name_of(module, model): ids for module in modules}


def new_modules(model: PreTrainedModel) -> list[str]:
    """The modules beside the pretrained one: a classifier's head, and what else starts at random."""
    return [
        name
        for name, module in model.named_children()
        if name != model.base_model_prefix and any(True for _ in module.parameters())
    ]


def show_bias(model: PeftModel) -> None:
    """PEFT wraps a head whose rows are trained and hides its bias, which TRL's loss asks for."""
    head = model.get_output_embeddings()
    if hasattr(head, "token_adapter"):
        # Past the module's registry, where it would be a second parameter.
        object.__setattr__(head, "bias", getattr(head.token_adapter.base_layer, "bias", None))


def train_in_32_bits(model: torch.nn.Module) -> None:
    """Also what PEFT leaves as it was stored: a head that is trained whole."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def finished(model: PreTrainedModel | PeftModel, dtype: torch.dtype) -> PreTrainedModel:
    """A trained model with its LoRA merged, in the numbers that are stored."""
    merged = model.merge_and_unload() if isinstance(model, PeftModel) else model
    assert isinstance(merged, PreTrainedModel)
    return merged.to(dtype)
