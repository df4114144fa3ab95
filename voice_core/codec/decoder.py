"""XCodec2's decoder as a network: codes in, sound out, every item of a ragged batch as if it were alone.

Letters in shape comments: B items, T codec frames, U frames after upsampling, H hidden channels, C channels
of a stage, N heads, D channels of a head, L scalars of a code, S samples.

A batch is padded on the right. `valid` [B, 1, T] is 1 where a frame belongs to its item and 0 where it is
padding, or None if nothing is padded, which is faster. Padding would reach an item in four ways, and each is
closed where it opens: convolutions see zeros beyond the end (`Conv`, `Upsampling`), group statistics count
valid frames only (`Norm`), attention has no key there, and the inverse STFT divides by the windows of the
item's own frames.

Module names are the original's, so that its weights load with ``load_state_dict(strict=True)``. Nothing here
is kept in a buffer or limited in length.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voice_core.codec.config import NORM_GROUPS, OVERLAP, CodecConfig

EPSILON = 1e-6  # of every norm
ROPE_BASE = 10_000
LOUDEST_BIN = 100.0  # the original's limit, which keeps a wild magnitude from overflowing
LEAST_ENVELOPE = 1e-11  # where no window reaches, the sum of windows is 0


def keep_valid(x: Tensor, valid: Tensor | None) -> Tensor:
    """Return x [B, C, T] with zeros in the padding."""
    return x if valid is None else x * valid


class Conv(nn.Conv1d):
    """A convolution that keeps the length and sees zeros beyond an item's end."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__(channels, channels, kernel_size, padding=kernel_size // 2)

    def forward(self, input: Tensor, valid: Tensor | None = None) -> Tensor:
        return super().forward(keep_valid(input, valid))


class Upsampling(nn.ConvTranspose1d):
    """A transposed convolution that makes `factor` frames of one and halves the channels."""

    def __init__(self, channels: int, factor: int, kernel_size: int) -> None:
        padding = (kernel_size - factor) // 2
        super().__init__(channels, channels // 2, kernel_size, stride=factor, padding=padding)


class Norm(nn.GroupNorm):
    """A GroupNorm whose statistics run over the valid frames."""

    def __init__(self, channels: int) -> None:
        super().__init__(NORM_GROUPS, channels, eps=EPSILON)

    def forward(self, input: Tensor, valid: Tensor | None = None) -> Tensor:
        if valid is None:
            return super().forward(input)
        grouped = torch.unflatten(input, 1, (self.num_groups, -1))  # [B, groups, C / groups, T]
        weight = valid.unsqueeze(1)  # [B, 1, 1, T]
        count = weight.sum(dim=(2, 3), keepdim=True) * grouped.shape[2]
        mean = (grouped * weight).sum(dim=(2, 3), keepdim=True) / count
        centred = (grouped - mean) * weight
        variance = centred.square().sum(dim=(2, 3), keepdim=True) / count
        normed = (centred * torch.rsqrt(variance + self.eps)).flatten(1, 2)  # [B, C, T]
        return normed * self.weight[:, None] + self.bias[:, None]


class ResidualBlock(nn.Module):
    """Two convolutions beside a straight path."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = Norm(channels)
        self.conv1 = Conv(channels, 3)
        self.norm2 = Norm(channels)
        self.conv2 = Conv(channels, 3)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        inner = self.conv1(F.silu(self.norm1(x, valid)), valid)
        beside: Tensor = self.conv2(F.silu(self.norm2(inner, valid)), valid)
        return x + beside


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Turn each neighbouring pair of channels of x [B, T, N, D] by turns [T or 1, N or 1, D / 2]."""
    pairs = torch.view_as_complex(torch.unflatten(x, -1, (-1, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2)


class Attention(nn.Module):
    """Every frame looks at every frame of its item."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.c_attn = nn.Linear(config.hidden, 3 * config.hidden, bias=False)
        self.c_proj = nn.Linear(config.hidden, config.hidden, bias=False)

    def forward(self, x: Tensor, turns: Tensor, visible: Tensor | None) -> Tensor:
        """x [B, T, H]; visible [B, 1, 1, T] is True where a frame may be looked at."""
        mixed = self.c_attn(x).unflatten(-1, (3, self.heads, -1))  # [B, T, 3, N, D]
        queries, keys, values = mixed.unbind(2)
        seen = F.scaled_dot_product_attention(
            rotate(queries, turns).transpose(1, 2),
            rotate(keys, turns).transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=visible,
        )  # [B, N, T, D]
        projected: Tensor = self.c_proj(seen.transpose(1, 2).flatten(2))  # [B, T, H]
        return projected


class FeedForward(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden, 4 * hidden, bias=False)
        self.fc2 = nn.Linear(4 * hidden, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        narrowed: Tensor = self.fc2(F.silu(self.fc1(x)))
        return narrowed


class TransformerLayer(nn.Module):
    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.att_norm = nn.RMSNorm(config.hidden, eps=EPSILON)
        self.att = Attention(config)
        self.ffn_norm = nn.RMSNorm(config.hidden, eps=EPSILON)
        self.mlp = FeedForward(config.hidden)

    def forward(self, x: Tensor, turns: Tensor, visible: Tensor | None) -> Tensor:
        x = x + self.att(self.att_norm(x), turns, visible)
        thought: Tensor = self.mlp(self.ffn_norm(x))
        return x + thought


class Backbone(nn.Module):
    """Convolutions, a transformer, convolutions: all at the rate of the codes."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = Conv(config.hidden, 7)
        self.prior_net = nn.ModuleList(ResidualBlock(config.hidden) for _ in range(2))
        self.transformers = nn.ModuleList(TransformerLayer(config) for _ in range(config.layers))
        self.post_net = nn.ModuleList(ResidualBlock(config.hidden) for _ in range(2))
        self.final_layer_norm = nn.LayerNorm(config.hidden, eps=EPSILON)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """x [B, T, H] → [B, T, H]"""
        x = self.embed(x.transpose(1, 2), valid)  # [B, H, T]
        for block in self.prior_net:
            x = block(x, valid)
        x = x.transpose(1, 2)
        turns = self.turns(x.shape[1], x.device)
        visible = None if valid is None else valid.bool().unsqueeze(1)  # [B, 1, 1, T]
        for layer in self.transformers:
            x = layer(x, turns, visible)
        x = x.transpose(1, 2)
        for block in self.post_net:
            x = block(x, valid)
        normed: Tensor = self.final_layer_norm(x.transpose(1, 2))
        return normed

    def turns(self, frames: int, device: torch.device) -> Tensor:
        """Return the rotary angles as complex numbers: [T, 1, D / 2], or [1, N, D / 2] over heads."""
        head_channels = self.config.hidden // self.config.heads
        exponents = torch.arange(0, head_channels, 2, device=device, dtype=torch.float32) / head_channels
        positions = torch.arange(frames if self.config.rope_axis == "time" else self.config.heads, device=device)
        angles = torch.outer(positions.float(), 1.0 / ROPE_BASE**exponents)
        turns = torch.polar(torch.ones_like(angles), angles)
        return turns.unsqueeze(1) if self.config.rope_axis == "time" else turns.unsqueeze(0)


class Upsampler(nn.Module):
    """Raises the frame rate between the backbone and the head (44.1 kHz only)."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.factors = config.upsample_factors
        self.upsample_layers = nn.ModuleList()
        self.resnet_blocks = nn.ModuleList()
        channels = config.hidden
        for factor, kernel_size in zip(self.factors, config.upsample_kernel_sizes, strict=True):
            self.upsample_layers.append(Upsampling(channels, factor, kernel_size))
            channels //= 2
            self.resnet_blocks.append(ResidualBlock(channels))
        self.out_proj = nn.Linear(channels, config.hidden)

    def forward(self, x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """x [B, T, H] → [B, U, H] and its `valid` [B, 1, U]"""
        x = x.transpose(1, 2)
        for factor, raise_rate, block in zip(self.factors, self.upsample_layers, self.resnet_blocks, strict=True):
            x = raise_rate(keep_valid(x, valid))  # [B, C / 2, factor * T]
            valid = None if valid is None else valid.repeat_interleave(factor, dim=-1)
            x = block(x, valid)
        return F.silu(self.out_proj(x.transpose(1, 2))), valid


def overlap_add(windows: Tensor) -> Tensor:
    """Add windows [B, U, n_fft] that start one hop after the other; return the U hops in the middle, [B, S].

    With four hops a window, U = 3 windows of blocks a, b, c become
        a0 a1 a2 a3
           b0 b1 b2 b3
              c0 c1 c2 c3
    of which one and a half hops are cut off on each side.
    """
    blocks = torch.unflatten(windows, -1, (OVERLAP, -1))  # [B, U, OVERLAP, hop]
    last = OVERLAP - 1
    shifted = [F.pad(blocks[:, :, place], (0, 0, place, last - place)) for place in range(OVERLAP)]
    summed = torch.stack(shifted).sum(dim=0).flatten(1)  # [B, (U + 3) * hop]
    cut = last * blocks.shape[-1] // 2
    return summed[:, cut : summed.shape[1] - cut]


class Head(nn.Module):
    """The inverse STFT: one spectrum a frame, overlapped and added."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.n_fft = config.n_fft
        self.out = nn.Linear(config.hidden, config.n_fft + 2)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """x [B, U, H] → [B, S], not cut: beyond an item's end stands what its last windows leave."""
        log_magnitude, phase = self.out(x).chunk(2, dim=-1)  # [B, U, n_fft / 2 + 1] each
        spectrum = torch.polar(log_magnitude.exp().clamp(max=LOUDEST_BIN), phase)
        window = torch.hann_window(self.n_fft, device=x.device)
        sounds = torch.fft.irfft(spectrum, self.n_fft) * window  # [B, U, n_fft]
        energies = window.square().expand(1, x.shape[1], -1)  # [1, U, n_fft]
        if valid is not None:
            counted = valid.transpose(1, 2)  # [B, U, 1]
            sounds, energies = sounds * counted, energies * counted
        return overlap_add(sounds) / overlap_add(energies).clamp(min=LEAST_ENVELOPE)


class Quantizer(nn.Module):
    """Reads a code as one number per level and projects them (finite scalar quantization, decoding side)."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.levels = config.levels
        self.project_out = nn.Linear(len(config.levels), config.quant_dim)

    def forward(self, codes: Tensor) -> Tensor:
        """codes [B, T] int64: the sum of digit[i] * levels[0] * … * levels[i - 1] → [B, T, quant_dim]"""
        levels = torch.tensor(self.levels, device=codes.device)  # [L]
        places = torch.tensor([math.prod(self.levels[:i]) for i in range(len(self.levels))], device=codes.device)
        digits = codes.unsqueeze(-1) // places % levels  # [B, T, L]
        projected: Tensor = self.project_out((digits - levels // 2) / (levels // 2))
        return projected


class Generator(nn.Module):
    """Everything but `fc_post_a`, under the name that the original's weights have."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.quantizer = Quantizer(config)
        self.backbone = Backbone(config)
        self.upsampler = Upsampler(config) if config.upsample_factors else None
        self.head = Head(config)


class Decoder(nn.Module):
    """Codes to sound. A plain module: it can be trained as it is."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.generator = Generator(config)
        self.fc_post_a = nn.Linear(config.quant_dim, config.hidden)

    def forward(self, codes: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the sound [B, T * samples_per_frame] float32 of codes [B, T] int64 (codebook indices).

        lengths [B] counts the frames of each item, at least 1, where the batch is padded; None says that it
        isn't. What stands beyond the end of an item is not its sound.
        """
        valid = None
        if lengths is not None:
            places = torch.arange(codes.shape[1], device=codes.device)
            valid = (places < lengths[:, None]).unsqueeze(1).float()  # [B, 1, T]
        x = self.fc_post_a(self.generator.quantizer(codes))  # [B, T, H]
        x = self.generator.backbone(x, valid)
        if self.generator.upsampler is not None:
            x, valid = self.generator.upsampler(x, valid)  # [B, U, H]
        sound: Tensor = self.generator.head(x, valid)
        return sound
