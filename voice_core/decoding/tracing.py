"""Parts of networks while they are traced: linear layers, packed ones too, and norms in few operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from voice_core.model.network import RMSNorm
from voice_core.model.packing import PackedLinear

# The product of a packed layer. The tracer can't record the operator itself, for its list of optional numbers.
PRODUCT = """
graph(%x : Tensor, %packed : Tensor, %bias : Tensor?):
  %nothing : str = prim::Constant[value="none"]()
  %algorithm : str = prim::Constant[value=""]()
  %numbers : Scalar?[] = prim::ListConstruct()
  %product : Tensor = mkldnn::_linear_pointwise(%x, %packed, %bias, %nothing, %numbers, %algorithm)
  return (%product)
"""
# The same with rows of zeros where there are fewer than LEAST_ROWS.
PRODUCT_OF_FEW = """
graph(%x : Tensor, %packed : Tensor, %bias : Tensor?):
  %nothing : str = prim::Constant[value="none"]()
  %algorithm : str = prim::Constant[value=""]()
  %numbers : Scalar?[] = prim::ListConstruct()
  %zero : int = prim::Constant[value=0]()
  %least : int = prim::Constant[value=LEAST_ROWS]()
  %rows : int = aten::size(%x, %zero)
  %few : bool = aten::lt(%rows, %least)
  %product : Tensor = prim::If(%few)
    block0():
      %more : int = aten::sub(%least, %rows)
      %sides : int[] = prim::ListConstruct(%zero, %zero, %zero, %more)
      %padded : Tensor = aten::constant_pad_nd(%x, %sides, %zero)
      %all : Tensor = mkldnn::_linear_pointwise(%padded, %packed, %bias, %nothing, %numbers, %algorithm)
      %some : Tensor = aten::narrow(%all, %zero, %zero, %rows)
      -> (%some)
    block1():
      %whole : Tensor = mkldnn::_linear_pointwise(%x, %packed, %bias, %nothing, %numbers, %algorithm)
      -> (%whole)
  return (%product)
"""
# oneDNN reads a matrix more slowly for one row or two than for four: benchmarks/compare.py --batch 1 2 4 shows it.
# What is still in a cache is faster without rows of zeros, and a model of so many bytes is in none.
LEAST_ROWS = 4
MORE_THAN_A_CACHE_BYTES = 64 << 20


def packed_linears(*modules: nn.Module) -> list[PackedLinear]:
    """Return the packed layers in the modules, in their order."""
    return [part for module in modules for part in module.modules() if isinstance(part, PackedLinear)]


def matrices(linears: Sequence[PackedLinear]) -> list[Tensor]:
    """Return what a trace takes for `Products.use`, never an empty list: the tracer can't tell what is in it."""
    return [linear.packed for linear in linears] or [torch.empty(0)]


class Products:
    """Linear layers while they are traced: the tracer takes packed matrices only from outside."""

    def __init__(self, linears: Sequence[PackedLinear], *, few_rows: bool = False) -> None:
        """Take the layers; with `few_rows`, what goes in is [B, in], and B may be less than `LEAST_ROWS`."""
        self._linears = linears
        large = sum(matrix.numel() * matrix.element_size() for matrix in matrices(linears)) > MORE_THAN_A_CACHE_BYTES
        graph = PRODUCT_OF_FEW.replace("LEAST_ROWS", str(LEAST_ROWS)) if few_rows and large else PRODUCT
        self._product: Any = torch._C._create_function_from_graph("product", torch._C.parse_ir(graph))
        self._packed: dict[PackedLinear, Tensor] = {}

    def use(self, packed: Sequence[Tensor]) -> None:
        """Take the matrices from here from now on."""
        self._packed = dict(zip(self._linears, packed, strict=False))

    def __call__(self, linear: nn.Module, x: Tensor) -> Tensor:
        """Return […, out] of x […, in]; the caller sees to it that there are not too many different counts of rows."""
        if isinstance(linear, PackedLinear):
            packed: Tensor = self._product(x, self._packed[linear], linear.bias)
            return packed
        plain: Tensor = linear(x)
        return plain


class Norm:
    """An RMSNorm: x · √H · gain / √(x · x + H · eps)."""

    def __init__(self, norm: RMSNorm, size: int) -> None:
        self._gain: Tensor = norm.gain * size**0.5
        self._least = torch.tensor((size * norm.eps) ** 0.5)

    def __call__(self, x: Tensor) -> Tensor:
        """Return x […, H] normed."""
        return (x * self._gain).div_(self._divisor(x))

    def add(self, x: Tensor, added: Tensor) -> Tensor:
        """Return x and what is normed before it is added, both […, H]."""
        total: Tensor = torch.addcdiv(x, added * self._gain, self._divisor(added))
        return total

    def _divisor(self, x: Tensor) -> Tensor:
        lengths: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return torch.hypot(lengths, self._least)
