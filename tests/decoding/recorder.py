"""A stand-in for CUDA graphs that needs no GPU: it records every kernel of a computation and runs the same ones again.

As in a CUDA graph, shapes, numbers and addresses are those of the recording: a result of a kernel goes to where it went
then, and Python is not asked again. So what a recording wrongly holds fast shows as a wrong code. As during a capture,
whoever asks the device for a number is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# They make the host wait for the device: it must know a number, or how many there are.
ASKING = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::is_nonzero")


class HostAsked(Exception):  # noqa: N818  # what happened, in two words
    """A kernel whose result the host waits for."""


class Kernels(TorchDispatchMode):
    """Notes every kernel with its arguments and results while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        if name in ASKING:
            raise HostAsked(name)
        indices = [t for t in tree_leaves(args[1:2]) if isinstance(t, Tensor)] if name.startswith("aten::index") else []
        if any(t.dtype == torch.bool for t in indices):
            raise HostAsked(f"{name} with a mask")
        result = func(*args, **kwargs)
        # A number of the host (a tensor without dimensions) may go into a kernel; nothing else may cross over.
        places = {t.device.type for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t.dim()}
        places |= {t.device.type for t in tree_leaves(result) if isinstance(t, Tensor)}
        if len(places) > 1:
            raise HostAsked(f"{name} copies between host and device")
        if func._schema.is_mutable or not shares_memory(result, (args, kwargs)):  # a view needs no kernel
            self.calls.append((func, args, kwargs, result))
        return result


def shares_memory(result: Any, arguments: Any) -> bool:
    """Whether the result lies in an argument's memory."""
    lies_in = [t.untyped_storage()._cdata for t in tree_leaves(arguments) if isinstance(t, Tensor) and not t.is_mkldnn]
    return any(isinstance(t, Tensor) and t.untyped_storage()._cdata in lies_in for t in tree_leaves(result))


def record(compute: Callable[[], None]) -> Callable[[], None]:
    """Run a computation and return what runs its kernels again."""
    with Kernels() as kernels:
        compute()

    def run_again() -> None:
        for func, args, kwargs, results in kernels.calls:
            again = func(*args, **kwargs)
            for new, place in zip(tree_leaves(again), tree_leaves(results), strict=True):
                if isinstance(place, Tensor) and new is not place and new.data_ptr() != place.data_ptr():
                    place.copy_(new)

    return run_again
