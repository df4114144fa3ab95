"""What a codec is made of: the sizes of its decoder, and how a config.json spells them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from voice_core.errors import CheckpointError

FRAMES_PER_SECOND = 50  # of every XCodec2: its encoder turns 320 samples at 16 kHz into one code
HEAD_CHANNELS = 64  # of the published models, whose code fixes it, so that no config.json states it
NORM_GROUPS = 32  # of every GroupNorm in the decoder; the original's code fixes it too
OVERLAP = 4  # the inverse STFT's window spans so many hops

RopeAxis = Literal["time", "head"]

# Our name of a size, and the names under which config files state it: the embedded codec's own (ours, written
# by `dataclasses.asdict`), the original XCodec2's, and the one that its small reimplementations use.
SPELLINGS: dict[str, tuple[str, ...]] = {
    "hidden": ("hidden", "codec_decoder_hidden_size"),
    "layers": ("layers",),
    "heads": ("heads",),
    "quant_dim": ("quant_dim",),
    "levels": ("levels",),
    "hop_length": ("hop_length", "hop"),
    "upsample_factors": ("upsample_factors", "up_factors"),
    "upsample_kernel_sizes": ("upsample_kernel_sizes", "up_kernels"),
    "rope_axis": ("rope_axis",),
    "sample_rate": ("sample_rate",),
    "code_map": ("code_map",),
}
KINDS = {  # of a size in JSON; the others are whole numbers
    "levels": list,
    "upsample_factors": list,
    "upsample_kernel_sizes": list,
    "rope_axis": str,
    "code_map": list,
}
# Small checkpoints in the original's format state here what the original's code fixes.
FIXED_IN_THE_ORIGINAL = "tiny_test_only"
SPELLINGS_OF_THE_FIXED: dict[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers",),
    "heads": ("num_attention_heads",),
    "quant_dim": ("quantization_dim",),
    "rope_axis": ("rope_axis",),
}


@dataclass(frozen=True)
class CodecConfig:
    """The sizes of one decoder; the defaults are those of the published 16 kHz model.

    Raises CheckpointError, naming the field, if the sizes contradict each other.
    """

    hidden: int = 1024  # channels
    layers: int = 12  # of the transformer
    heads: int = 16
    quant_dim: int = 2048  # channels of a decoded code
    levels: tuple[int, ...] = (4,) * 8  # of the scalars that a code stands for
    hop_length: int = 320  # samples between two frames of the inverse STFT
    upsample_factors: tuple[int, ...] = ()  # one stage each: frames of the inverse STFT per frame before it
    upsample_kernel_sizes: tuple[int, ...] = ()
    # The original 16 kHz decoder rotates queries and keys by the number of their head and so has no notion of
    # time; its weights were trained with that. The 44.1 kHz one rotates by the frame.
    rope_axis: RopeAxis = "head"
    sample_rate: int = 16000  # Hz
    code_map: tuple[int, ...] | None = None  # speaker's code → codebook index; None: the speaker says indices

    def __post_init__(self) -> None:
        for name in ("hidden", "layers", "heads", "quant_dim", "hop_length", "sample_rate"):
            self._require_counts(name, (getattr(self, name),))
        for name in ("levels", "upsample_factors", "upsample_kernel_sizes"):
            self._require_counts(name, getattr(self, name))
        # One and a half hops are cut off on each side of the sound.
        self._require(self.hop_length % 2 == 0, "hop_length", f"{self.hop_length} is odd")
        self._require(min(self.levels, default=0) > 1, "levels", f"{self.levels} must be above 1")
        self._require(self.rope_axis in ("time", "head"), "rope_axis", f"{self.rope_axis!r} is neither time nor head")
        self._require_whole_heads()
        self._require_whole_stages()
        self._require(
            self.sample_rate == FRAMES_PER_SECOND * self.samples_per_frame,
            "sample_rate",
            f"{self.sample_rate} Hz, but hop_length and upsample_factors give {self.samples_per_frame} "
            f"samples a frame, which is {FRAMES_PER_SECOND * self.samples_per_frame} Hz",
        )
        if self.code_map is not None:
            known = all(type(index) is int and 0 <= index < math.prod(self.levels) for index in self.code_map)
            self._require(bool(self.code_map) and known, "code_map", f"must list 0..{math.prod(self.levels) - 1} only")

    @property
    def n_fft(self) -> int:
        """Samples under one window of the inverse STFT."""
        return OVERLAP * self.hop_length

    @property
    def samples_per_frame(self) -> int:
        return self.hop_length * math.prod(self.upsample_factors)

    @property
    def codebook_size(self) -> int:
        """How many codes the speaker may say: 0..codebook_size-1."""
        return math.prod(self.levels) if self.code_map is None else len(self.code_map)

    @staticmethod
    def _require(kept: bool, key: str, reason: str) -> None:
        if not kept:
            raise CheckpointError("codec config", key, reason)

    def _require_counts(self, key: str, values: tuple[int, ...]) -> None:
        counts = all(type(value) is int and value > 0 for value in values)
        self._require(counts, key, f"{values} must be whole numbers above 0")

    def _require_whole_heads(self) -> None:
        channels, rest = divmod(self.hidden, self.heads)
        self._require(
            rest == 0 and channels % 2 == 0,
            "heads",
            f"{self.heads} heads of {self.hidden} channels are not even",
        )

    def _require_whole_stages(self) -> None:
        stages, kernels = self.upsample_factors, self.upsample_kernel_sizes
        self._require(len(stages) == len(kernels), "upsample_kernel_sizes", f"{kernels} for the factors {stages}")
        for factor, kernel in zip(stages, kernels, strict=True):
            fits = kernel >= factor and (kernel - factor) % 2 == 0
            self._require(fits, "upsample_kernel_sizes", f"{kernel} does not centre on a factor of {factor}")
        narrowest = self.hidden >> len(stages)  # every stage halves the channels
        divides = narrowest << len(stages) == self.hidden and narrowest % NORM_GROUPS == 0
        self._require(
            divides, "hidden", f"{self.hidden} does not leave {NORM_GROUPS} groups after {len(stages)} stages"
        )


def read_config(file: Path, sizes_of_weights: Mapping[str, Any]) -> CodecConfig:
    """Return what `file` states, completed by what the weights show (`sizes_of_weights`, by our field names).

    Raises CheckpointError, naming the file and the field, if either can't be read or they can't be true
    together.
    """
    try:
        stated = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(str(file), "", f"can't be read: {error}") from error
    if not isinstance(stated, dict):
        raise CheckpointError(str(file), "", "must be a JSON object")
    if stated.get("frames_per_second", FRAMES_PER_SECOND) != FRAMES_PER_SECOND:
        raise CheckpointError(str(file), "frames_per_second", f"an XCodec2 says {FRAMES_PER_SECOND} codes a second")
    try:
        return CodecConfig(**_completed({**sizes_of_weights, **_translated(stated)}))
    except CheckpointError as error:
        raise CheckpointError(str(file), error.key, error.reason) from error


def _translated(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sizes that a config.json states, under our names and as tuples."""
    fixed = stated.get(FIXED_IN_THE_ORIGINAL, {})
    if not isinstance(fixed, dict):
        raise CheckpointError("codec config", FIXED_IN_THE_ORIGINAL, "must be a JSON object")
    found = {}
    for source, spellings in ((fixed, SPELLINGS_OF_THE_FIXED), (stated, SPELLINGS)):
        for name, keys in spellings.items():
            for key in keys:
                if source.get(key) is not None:
                    found[name] = _typed(name, key, source[key])
    return found


def _typed(name: str, key: str, value: object) -> object:
    """Return the value of a size as Python keeps it, or refuse one of the wrong kind."""
    kind = KINDS.get(name, int)
    if type(value) is not kind:
        raise CheckpointError("codec config", key, f"{value!r:.40} is not of the kind {kind.__name__}")
    if not isinstance(value, list):
        return value
    if any(type(item) is not int for item in value):
        raise CheckpointError("codec config", key, f"{value!r:.40} is not a list of whole numbers")
    return tuple(value)


def _completed(sizes: dict[str, Any]) -> dict[str, Any]:
    """Add what follows from other sizes where nothing states it."""
    sizes = dict(sizes)
    factors = sizes.setdefault("upsample_factors", ())
    sizes.setdefault("upsample_kernel_sizes", ())
    sizes.setdefault("rope_axis", "time" if factors else "head")
    sizes.setdefault("heads", max(1, sizes["hidden"] // HEAD_CHANNELS))
    sizes.setdefault("sample_rate", FRAMES_PER_SECOND * sizes["hop_length"] * math.prod(factors))
    return {field.name: sizes[field.name] for field in fields(CodecConfig) if field.name in sizes}
