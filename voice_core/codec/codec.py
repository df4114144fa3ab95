"""The codec as the rest of the product sees it: lists of codes in, sounds out.

Letters in shape comments: B items of a pass, T frames of the longest of them, N samples of one item.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voice_core.batching import padded_groups
from voice_core.codec.checkpoint import load_decoder
from voice_core.codec.config import FRAMES_PER_SECOND
from voice_core.codec.decoder import Decoder
from voice_core.errors import SynthesisError
from voice_core.hub import checkpoint_directory
from voice_core.tracing import Traced, traced, tracing

logger = logging.getLogger(__name__)

Codes = Sequence[int] | NDArray[Any] | Tensor  # [frames] whole numbers

# 82 s of audio, which already fills a GPU. The published models need about 200 KB of activations a frame (on
# a CPU), so that a pass stays below 1 GB. A longer item is a pass of its own.
MAX_PASS_FRAMES = 4096

# Passes are rounded up to it and masked: libraries choose and keep kernels for every length that they meet.
FRAMES_MULTIPLE = 16

# What the tracer warns of: that levels become constants, and that a GroupNorm asks if it has more than one number.
HARMLESS = "torch.tensor results are registered as constants|Converting a tensor to a Python boolean"


class Codec:
    """An XCodec2 decoder on a device; it always computes in float32.

    In bfloat16 the sound is 37 dB away from what it should be, and the decoder's 0.75 GB are small beside the
    model that speaks the codes.
    """

    def __init__(self, decoder: Decoder, device: str | torch.device = "cpu", *, batched: bool | None = None) -> None:
        """Take a decoder to its device; `batched` says if a pass may hold several items.

        By default it may on all devices but a CPU. There a batch is no faster than its items one by one, and an item
        alone has the same bits whatever else is waiting, where in a batch it is only equal to rounding.
        """
        self._decoder = decoder.to(device, torch.float32)
        self._device = torch.device(device)
        self._config = decoder.config
        self.batched = self._device.type != "cpu" if batched is None else batched
        self._traced: tuple[Traced, Traced] | None = None  # for a pass without padding, and for one with it
        # [codebook_size] the codebook index of each code that may be said
        self._code_map = None if self._config.code_map is None else np.array(self._config.code_map)

    @classmethod
    def load(cls, directory_or_id: str | Path, device: str | torch.device = "cpu") -> Codec:
        """Load a checkpoint from a directory or the Hugging Face hub; CheckpointError if that fails."""
        return cls(load_decoder(checkpoint_directory(str(directory_or_id))), device)

    def trace(self) -> None:
        """On a CPU, run passes without Python from now on: the same to the bit, and the decoder keeps Python's lock."""
        if self._device.type != "cpu":
            return

        def decode(codes: Tensor, *lengths: Tensor) -> Tensor:
            sounds: Tensor = self._decoder(codes, *lengths)
            return sounds

        codes, lengths = torch.zeros(1, FRAMES_MULTIPLE, dtype=torch.int64), torch.tensor([FRAMES_MULTIPLE - 1])
        self._decoder.requires_grad_(False)
        try:
            with tracing():
                warnings.filterwarnings("ignore", HARMLESS)
                self._traced = traced(decode, [codes]), traced(decode, [codes, lengths])
        except Exception as error:  # the tracer of another torch, say; sound without it comes later but is right
            logger.warning("The codec could not be traced, it runs in Python: %s", error, exc_info=True)

    @property
    def traced(self) -> bool:
        """Whether passes run without Python."""
        return self._traced is not None

    @property
    def sample_rate(self) -> int:
        """Hz, of every sound."""
        return self._config.sample_rate

    @property
    def frames_per_second(self) -> int:
        return FRAMES_PER_SECOND

    @property
    def samples_per_frame(self) -> int:
        return self._config.samples_per_frame

    @property
    def codebook_size(self) -> int:
        """How many codes may be said: 0..codebook_size-1."""
        return self._config.codebook_size

    @contextmanager
    def own_stream(self) -> Iterator[None]:
        """On a GPU, let what this thread computes run beside other threads' work instead of after it.

        Codes come from the host and sounds go back there, so nothing but the weights is shared with others.
        """
        if self._device.type != "cuda":
            yield
            return
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))  # the weights are there
        with torch.cuda.stream(stream):
            yield

    def decode_batch(self, items: Sequence[Codes]) -> list[NDArray[np.float32]]:
        """Return the sound of each item, in order: [frames * samples_per_frame] float32 mono, about -1..1.

        An item sounds the same whatever it is decoded with: to the bit if passes hold one item, else to 1e-4 (the
        masks are exact, rounding differs). An item without frames is silent and costs
        nothing. Raises ValueError, before anything is decoded, if an item isn't a list of codes of the
        codebook, and SynthesisError if the decoder gives something that isn't a number.
        """
        indices = [self._indices(number, item) for number, item in enumerate(items)]
        sounds = [np.zeros(0, dtype=np.float32) for _ in items]
        lengths = [len(item) for item in indices]
        for members in padded_groups(lengths, most_positions=MAX_PASS_FRAMES, most_items=None if self.batched else 1):
            for member, sound in zip(members, self._decode_pass([indices[m] for m in members]), strict=True):
                if not np.isfinite(sound).all():
                    raise SynthesisError(f"item {member}: the codec decoded {len(indices[member])} codes to no sound")
                sounds[member] = sound
        return sounds

    def _indices(self, number: int, item: Codes) -> NDArray[np.int64]:
        """Return the codebook indices of an item [frames], once its codes are known to be the speaker's."""
        codes = item.numpy(force=True) if isinstance(item, Tensor) else np.asarray(item)
        if codes.ndim != 1:
            raise ValueError(f"item {number}: codes must have one dimension, not the shape {list(codes.shape)}")
        if codes.size == 0:
            return np.zeros(0, dtype=np.int64)
        if not np.issubdtype(codes.dtype, np.integer):
            raise ValueError(f"item {number}: codes must be whole numbers, not {codes.dtype}")
        outside = np.flatnonzero((codes < 0) | (codes >= self.codebook_size))
        if outside.size:
            frame = outside[0]
            raise ValueError(
                f"item {number}: code {codes[frame]} of frame {frame} is not in 0..{self.codebook_size - 1}"
            )
        known = codes.astype(np.int64)
        return known if self._code_map is None else self._code_map[known]

    @torch.inference_mode()
    def _decode_pass(self, items: list[NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        """Decode items that all have frames, in one pass of the network."""
        frames = [len(item) for item in items]
        width = -(-max(frames) // FRAMES_MULTIPLE) * FRAMES_MULTIPLE
        codes = np.zeros((len(items), width), dtype=np.int64)  # [B, T]
        for row, item in zip(codes, items, strict=True):
            row[: len(item)] = item
        padded = min(frames) < width
        lengths = torch.tensor(frames, device=self._device) if padded else None
        # cuDNN would convolve in TF32 unless it is told not to; 10 bits would tell a batch from its items.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            sounds = self._sounds(torch.from_numpy(codes).to(self._device), lengths)  # [B, N of the width]
        # Copies, so that a short sound doesn't keep the whole pass in memory.
        samples = [count * self.samples_per_frame for count in frames]
        return [sound[:end].copy() for sound, end in zip(sounds.cpu().numpy(), samples, strict=True)]

    def _sounds(self, codes: Tensor, lengths: Tensor | None) -> Tensor:
        if self._traced is None:
            sounds: Tensor = self._decoder(codes, lengths)
        else:
            whole, padded = self._traced
            sounds = whole(codes) if lengths is None else padded(codes, lengths)
        return sounds
