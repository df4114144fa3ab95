"""Weights laid out for the processor: on a CPU a product of few rows then takes a third to a half of its time.

oneDNN wants a matrix in blocks that depend on the processor. Given a plain one, torch hands the product to another
library, which on many processors is two to three times slower for the 1 to 32 rows of a decode step (measured with
benchmarks/compare.py). A packed layer keeps only the packed matrix, so the memory stays what it was.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """A linear layer that computes with oneDNN from a packed matrix; for inference only."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        # The blocked layout is opaque to state_dict and to .to(): a packed network is loaded, not saved or moved.
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")
        return product


def pack_linears(module: nn.Module) -> None:
    """Replace every float32 linear layer on the CPU inside `module` by a packed one; others stay as they are.

    The operators are those that torch's own compiler calls for frozen weights; a torch without them changes nothing.
    """
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not (has_onednn and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")):
        return
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            if child.weight.device.type == "cpu" and child.weight.dtype == torch.float32:
                setattr(module, name, PackedLinear(child))
        else:
            pack_linears(child)
