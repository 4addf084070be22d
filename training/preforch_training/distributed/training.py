"""What makes a Hugging Face trainer independent of the number of ranks.

In:  the batch size of the run; a trainer class.
Out: arguments for this rank; `RankTrainer`, whose steps hold the same rows on any number of ranks, and whose
     model is whole again on rank 0 when it is trained.

A step of one process and a step of n hold the same rows: process p of n reads the p-th part of every batch.
An epoch is filled up to whole batches with its own first rows, as accelerate does for several processes, for
one as well. So losses, which are means over rows or sums over all label tokens, differ by rounding alone
(and by dropout, which every rank draws by itself).
"""

import copy
from collections.abc import Iterator
from itertools import chain, cycle, islice
from typing import Any

import torch
from accelerate import PartialState
from accelerate.data_loader import DataLoaderShard
from accelerate.utils import DistributedType
from peft import PeftModel
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.utils.data import Sampler
from transformers import Trainer

from preforch_training.distributed.group import rank, settings, size
from preforch_training.distributed.shares import check_batch_size


def shares_model() -> bool:
    """Whether ranks hold parts of a model: FSDP2, and more than one rank."""
    return size() > 1 and settings().sharding == "fsdp2"


def rank_options(batch_size: int) -> dict[str, Any]:
    """Arguments of a trainer on this rank. `batch_size`: rows of the run, over all ranks."""
    options: dict[str, Any] = {
        "per_device_train_batch_size": check_batch_size(batch_size, name="batch_size"),
    }
    if shares_model():
        # Layers to wrap are those that the model names itself. Checkpoints in shards can be read by any
        # number of ranks.
        options["fsdp"] = True
        options["fsdp_config"] = {
            "version": 2,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "state_dict_type": "SHARDED_STATE_DICT",
            "cpu_offload": settings().cpu_offload,
        }
    return options


class FilledOrder(Sampler[int]):
    """Row numbers of an epoch in random order, then its first ones again until the last batch is whole."""

    def __init__(self, random: Any, *, batch_size: int) -> None:
        """`random`: accelerate's sampler, seeded by epoch."""
        self._random, self._batch_size = random, batch_size

    def set_epoch(self, epoch: int) -> None:
        """Draw by seed and epoch alone, so that a continued training finds its place."""
        if hasattr(self._random, "set_epoch"):  # rows that are read as they come have no such thing
            self._random.set_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(self._random) // self._batch_size) * self._batch_size

    def __iter__(self) -> Iterator[int]:
        rows = list(self._random)
        return islice(chain(rows, cycle(rows)), len(self))


class RankTrainer(Trainer):  # type: ignore[misc]  # transformers is partly untyped
    """Goes before a trainer class among the bases of another."""

    model: Any

    def create_accelerator_and_postprocess(self) -> None:
        if shares_model() and not torch.cuda.is_available():
            # FSDP2 works on CPUs, but accelerate offers it to GPUs alone and takes its word from here.
            PartialState().distributed_type = DistributedType.MULTI_GPU
        super().create_accelerator_and_postprocess()

    def get_train_dataloader(self) -> DataLoaderShard:
        """The usual one, with whole batches."""
        loader: DataLoaderShard = super().get_train_dataloader()
        batch = self.args.per_device_train_batch_size * self.args.world_size
        order = FilledOrder(loader.get_sampler(), batch_size=batch)
        loader.set_sampler(order)
        # accelerate leaves what it takes for repeated rows of the last batch out of metrics.
        loader.dataset.total_dataset_length = len(order)
        return loader

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """Nothing where the training has ended: transformers asks first and looks afterwards, so that one
        which goes on at its last checkpoint would take a step too many."""
        if self.control.should_training_stop:
            return [], None
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train. Afterwards `model` is whole on rank 0; elsewhere, if it was shared, it has only shapes."""
        if shares_model() and isinstance(self.model, PeftModel):
            raise ValueError(
                "distributed.sharding is 'fsdp2', and PEFT cannot shard what LoRA trains of the embeddings: "
                "allowed are 'ddp' or lora_rank = 0"
            )
        skeleton = without_parameters(self.model) if shares_model() else None
        found = super().train(*args, **kwargs)
        if skeleton is not None:
            options = StateDictOptions(full_state_dict=True, cpu_offload=True)
            state = get_model_state_dict(self.model, options=options)
            self.optimizer = self.lr_scheduler = self.model_wrapped = None
            self.accelerator.free_memory()
            if rank() == 0:
                skeleton.load_state_dict(state, assign=True)
                tie_again(skeleton)
            self.model = skeleton
        return found


def without_parameters(model: torch.nn.Module) -> torch.nn.Module:
    """A copy whose parameters have shapes and no memory; ties stay ties."""
    memo: dict[int, Any] = {
        id(parameter): torch.nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, memo)


def tie_again(model: torch.nn.Module) -> None:
    """Loading parameters one by one has separated those that are one."""
    for module in model.modules():
        tie: Any = getattr(module, "tie_weights", None)
        if tie is not None:
            tie()
            return
