"""What tells a reloaded engine from one that kept old weights, on a toy engine that packs as vLLM does."""

from types import SimpleNamespace

import pytest
import torch
from preforch_training.sampling.reloading import ReloadError, compare, pack_again
from torch import nn

WIDTH, VOCABULARY, PADDED = 8, 10, 16


def checkpoint(seed: int, *, tied: bool) -> dict[str, torch.Tensor]:
    """Tensors named as Hugging Face names them."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, WIDTH),
        "model.layers.0.self_attn.q_proj.weight": (WIDTH, WIDTH),
        "model.layers.0.self_attn.k_proj.weight": (4, WIDTH),
        "model.layers.0.self_attn.v_proj.weight": (4, WIDTH),
        "model.layers.0.self_attn.q_proj.bias": (WIDTH,),
        "model.layers.0.self_attn.k_proj.bias": (4,),
        "model.layers.0.self_attn.v_proj.bias": (4,),
        "model.norm.weight": (WIDTH,),
    }
    if not tied:
        shapes["lm_head.weight"] = (VOCABULARY, WIDTH)
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}


def pack(module: nn.Module, weight: torch.Tensor) -> None:
    """Have a module multiply by a copy of a weight."""
    copy = weight.detach().clone()
    module.cpu_linear = lambda x, _weight, bias: nn.functional.linear(x, copy, bias)


def parameter(values: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)


def matrix(values: torch.Tensor, *, keep: bool) -> nn.Module:
    """A packed matrix; `keep`: the plain weights stay and can be packed again, as of vLLM's embeddings."""
    module = nn.Module()
    module.weight = parameter(values if keep else torch.empty(0))
    pack(module, values)
    if keep:
        module.quant_method = SimpleNamespace(process_weights_after_loading=lambda m: pack(m, m.weight))
    return module


def padded(values: torch.Tensor) -> torch.Tensor:
    return torch.cat([values, torch.zeros(PADDED - VOCABULARY, WIDTH)])


def new_engine(tensors: dict[str, torch.Tensor]) -> nn.Module:
    """A model as vLLM holds it: q, k, v joined, vocabulary padded, plain weights of linear layers dropped."""
    engine, model, layer, attention = nn.Module(), nn.Module(), nn.Module(), nn.Module()
    engine.packed_modules_mapping = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}
    engine.model = model
    model.embed_tokens = matrix(padded(tensors["model.embed_tokens.weight"]), keep=True)
    model.layers = nn.ModuleList([layer])
    layer.self_attn = attention
    prefix = "model.layers.0.self_attn"
    parts = [tensors[f"{prefix}.{part}_proj.weight"] for part in "qkv"]
    attention.qkv_proj = matrix(torch.cat(parts), keep=False)
    biases = [tensors[f"{prefix}.{part}_proj.bias"] for part in "qkv"]
    attention.qkv_proj.bias = parameter(torch.cat(biases))
    model.norm = nn.Module()
    model.norm.weight = parameter(tensors["model.norm.weight"].clone())
    engine.lm_head = matrix(padded(tensors.get("lm_head.weight", torch.zeros(VOCABULARY, WIDTH))), keep=True)
    if "lm_head.weight" not in tensors:
        engine.lm_head.weight = model.embed_tokens.weight
        pack(engine.lm_head, engine.lm_head.weight)
    return engine


@pytest.mark.parametrize("tied", [True, False])
def test_an_engine_with_the_checkpoint_s_weights_passes(tied: bool) -> None:
    tensors = checkpoint(1, tied=tied)
    compare(new_engine(tensors), tensors)


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_is_still_packed_with_old_weights_is_found_and_packing_it_again_helps(tied: bool) -> None:
    tensors = checkpoint(1, tied=tied)
    engine = new_engine(tensors)
    pack(engine.get_submodule("lm_head"), padded(checkpoint(2, tied=False)["lm_head.weight"]))
    with pytest.raises(ReloadError, match=r"lm_head\.weight is packed with other values"):
        compare(engine, tensors)
    pack_again(engine)
    compare(engine, tensors)


@pytest.mark.parametrize("name", sorted(checkpoint(1, tied=False)))
def test_every_tensor_of_the_checkpoint_is_compared(name: str) -> None:
    tensors = checkpoint(1, tied=False)
    engine = new_engine(tensors)
    tensors[name].view(-1)[-1] += 1e-2
    with pytest.raises(ReloadError, match="checkpoint holds"):
        compare(engine, tensors)


def test_a_weight_that_the_checkpoint_lacks_is_named() -> None:
    tensors = checkpoint(1, tied=True)
    engine = new_engine(tensors)
    del tensors["model.norm.weight"]
    with pytest.raises(ReloadError, match=r"the checkpoint lacks model\.norm\.weight"):
        compare(engine, tensors)


def test_a_tensor_that_the_engine_does_not_use_is_named() -> None:
    tensors = checkpoint(1, tied=True)
    extra = {"score.weight": torch.zeros(1, WIDTH)}
    with pytest.raises(ReloadError, match=r"no weight that is named after score\.weight"):
        compare(new_engine(tensors), tensors | extra)


def test_weights_that_are_neither_plain_nor_packed_in_a_known_way_are_refused() -> None:
    tensors = checkpoint(1, tied=True)
    engine = new_engine(tensors)
    engine.get_submodule("model.norm").weight = parameter(torch.empty(0))
    with pytest.raises(ReloadError, match=r"model\.norm\.weight is kept in a form that cannot be compared"):
        compare(engine, tensors)
