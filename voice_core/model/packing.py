"""Weights laid out for the processor: on a CPU a product of few rows then takes a third to a half of its time.

oneDNN wants a matrix in blocks that depend on the processor. Given a plain one, torch hands the product to another
library, which on many processors is two to three times slower for the 1 to 32 rows of a decode step (measured with
benchmarks/compare.py). A packed layer keeps only the packed matrix, so the memory stays what it was.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# oneDNN makes kernels for every number of rows that it meets, and keeps them: texts of all lengths would fill hundreds
# of megabytes. So rows are rounded up, to one of so many numbers between a power of two and the next.
KERNELS_AN_OCTAVE = 8


class PackedLinear(nn.Module):
    """A linear layer that computes with oneDNN from a packed matrix; for inference only."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        # The blocked layout is opaque to state_dict and to .to(): a packed network is loaded, not saved or moved.
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., out_features] for x [..., in_features]."""
        rows = x.numel() // self.in_features
        more = rounded_up(rows) - rows
        if not more:
            return self._product(x)
        padded = self._product(F.pad(x.reshape(rows, -1), (0, 0, 0, more)))
        return padded[:rows].view(*x.shape[:-1], -1)

    def _product(self, x: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return product


def rounded_up(rows: int) -> int:
    """Return how many rows are computed for so many: at most an eighth more, and up to 16 no more."""
    octave = 1 << max(0, rows - 1).bit_length() >> 1
    multiple = max(1, octave // KERNELS_AN_OCTAVE)
    return -(-rows // multiple) * multiple


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
