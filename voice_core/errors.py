"""What can go wrong, told in the words of whoever has to mend it."""

from __future__ import annotations

# Of torch's CPU allocator, of CUDA itself, and of its libraries, which take memory of their own.
NO_MEMORY = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


class VoiceError(Exception):
    """Base of every error that voice_core raises on purpose."""


class RequestError(VoiceError, ValueError):
    """The caller asked for something that can't be spoken: names the field and the reason.

    All constructor arguments go to ``Exception.__init__``, so that the error survives pickling between processes.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}"


class CheckpointError(VoiceError):
    """A checkpoint that can't be loaded: names the file, the key in it and the reason."""

    def __init__(self, file: str, key: str, reason: str) -> None:
        super().__init__(file, key, reason)
        self.file = file
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.file}: {self.key}: {self.reason}" if self.key else f"{self.file}: {self.reason}"


class SettingError(VoiceError, ValueError):
    """A setting that this machine can't follow: names the setting and the reason."""


class SynthesisError(VoiceError):
    """A row that could not be spoken although its request was right."""

    def __init__(self, reason: str, may_succeed_later: bool = False) -> None:
        super().__init__(reason, may_succeed_later)
        self.reason = reason
        self.may_succeed_later = may_succeed_later  # the same request again, when memory or the decoder is back

    def __str__(self) -> str:
        return self.reason


def as_synthesis_error(error: Exception, part: str) -> VoiceError:
    """Return what those who wait for a row are told of an error in `part`: ours as it is, any other in our words.

    So it can be read in every process. Whatever ran out of memory may succeed later.
    """
    if isinstance(error, VoiceError):
        return error
    if ran_out_of_memory(error):
        return SynthesisError("the device has no memory left for it", may_succeed_later=True)
    return SynthesisError(f"{part} failed: {error}")


def ran_out_of_memory(error: Exception) -> bool:
    """Tell if it came of too little memory, on any device: torch has a type for that on a GPU, else only words."""
    names = {kind.__name__ for kind in type(error).__mro__}
    told = str(error)
    return not names.isdisjoint({"MemoryError", "OutOfMemoryError"}) or any(words in told for words in NO_MEMORY)
