"""What is told of an error in a part of the engine."""

import pytest
import torch

from voice_core.errors import SynthesisError, as_synthesis_error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_want_of_memory_is_known_in_all_its_words(error: Exception) -> None:
    told = as_synthesis_error(error, "the decoder")
    assert isinstance(told, SynthesisError)
    assert told.may_succeed_later
    assert told.reason == "the device has no memory left for it"


def test_other_errors_are_told_with_the_part_that_failed() -> None:
    told = as_synthesis_error(RuntimeError("CUDA error: an illegal memory access was encountered"), "the decoder")
    assert isinstance(told, SynthesisError)
    assert not told.may_succeed_later
    assert told.reason.startswith("the decoder failed: CUDA error")
