"""What tells a reloaded engine from one that kept old weights, on a toy engine that packs as vLLM does."""

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


class Packing:
    """Stands for vLLM's method of a layer that keeps its plain weights."""

    def process_weights_after_loading(self, matrix: "Matrix") -> None:
        matrix.pack(matrix.weight)


class Matrix(nn.Module):
    """Multiplies by a packed copy of its weights; `keep`: it has the plain ones too, to pack them again."""

    def __init__(self, values: torch.Tensor, *, keep: bool, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        self.weight = parameter(values if keep else torch.empty(0))
        self.bias = None if bias is None else parameter(bias)
        self.quant_method = Packing() if keep else None
        self.pack(values)

    def pack(self, values: torch.Tensor) -> None:
        self.packed = {"weight": values.detach().clone()}

    def cpu_linear(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return nn.functional.linear(x, self.packed["weight"], bias)


def parameter(values: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(values.clone(), requires_grad=False)


def padded(values: torch.Tensor) -> torch.Tensor:
    return torch.cat([values, torch.zeros(PADDED - VOCABULARY, WIDTH)])


class Engine(nn.Module):
    """A model as vLLM holds it: q, k, v joined, vocabulary padded, plain weights of linear layers dropped."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.packed_modules_mapping = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}
        prefix = "model.layers.0.self_attn"
        weights, biases = (
            torch.cat([tensors[f"{prefix}.{part}_proj.{kind}"] for part in "qkv"])
            for kind in ("weight", "bias")
        )
        embedding = Matrix(padded(tensors["model.embed_tokens.weight"]), keep=True)
        self.model = nn.Module()
        self.model.embed_tokens = embedding
        layer = nn.Module()
        layer.self_attn = nn.Module()
        layer.self_attn.qkv_proj = Matrix(weights, keep=False, bias=biases)
        self.model.layers = nn.ModuleList([layer])
        self.model.norm = nn.LayerNorm(WIDTH, bias=False)
        self.model.norm.weight = parameter(tensors["model.norm.weight"])
        head = tensors.get("lm_head.weight", tensors["model.embed_tokens.weight"])
        self.lm_head = Matrix(padded(head), keep=True)
        if "lm_head.weight" not in tensors:
            self.lm_head.weight = embedding.weight


@pytest.mark.parametrize("tied", [True, False])
def test_an_engine_with_the_checkpoint_s_weights_passes(tied: bool) -> None:
    tensors = checkpoint(1, tied=tied)
    compare(Engine(tensors), tensors)


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_is_still_packed_with_old_weights_is_found_and_packing_it_again_helps(tied: bool) -> None:
    tensors = checkpoint(1, tied=tied)
    engine = Engine(tensors)
    engine.lm_head.pack(padded(checkpoint(2, tied=False)["lm_head.weight"]))
    with pytest.raises(ReloadError, match=r"lm_head\.weight is packed with other values"):
        compare(engine, tensors)
    pack_again(engine)
    compare(engine, tensors)


@pytest.mark.parametrize("name", sorted(checkpoint(1, tied=False)))
def test_every_tensor_of_the_checkpoint_is_compared(name: str) -> None:
    tensors = checkpoint(1, tied=False)
    engine = Engine(tensors)
    tensors[name].view(-1)[-1] += 1e-2
    with pytest.raises(ReloadError, match="checkpoint holds"):
        compare(engine, tensors)


def test_a_weight_that_the_checkpoint_lacks_is_named() -> None:
    tensors = checkpoint(1, tied=True)
    engine = Engine(tensors)
    del tensors["model.norm.weight"]
    with pytest.raises(ReloadError, match=r"the checkpoint lacks model\.norm\.weight"):
        compare(engine, tensors)


def test_a_tensor_that_the_engine_does_not_use_is_named() -> None:
    tensors = checkpoint(1, tied=True)
    extra = {"score.weight": torch.zeros(1, WIDTH)}
    with pytest.raises(ReloadError, match=r"no weight that is named after score\.weight"):
        compare(Engine(tensors), tensors | extra)


def test_weights_that_are_neither_plain_nor_packed_in_a_known_way_are_refused() -> None:
    tensors = checkpoint(1, tied=True)
    engine = Engine(tensors)
    engine.get_submodule("model.norm").weight = parameter(torch.empty(0))
    with pytest.raises(ReloadError, match=r"model\.norm\.weight is kept in a form that cannot be compared"):
        compare(engine, tensors)
