import pytest
import torch

from voice_core.codec.config import CodecConfig
from voice_core.codec.decoder import OVERLAP, Norm, overlap_add

from .toy import TOY_16K, TOY_44K, toy_decoder


def random_codes(items: int, frames: int) -> torch.Tensor:
    return torch.randint(0, 65536, (items, frames), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("config", [TOY_16K, TOY_44K])
def test_what_stands_in_the_padding_is_never_heard(config: CodecConfig) -> None:
    decoder = toy_decoder(config)
    lengths = torch.tensor([9, 4])
    codes = random_codes(2, 9)
    with torch.no_grad():
        before = decoder(codes, lengths)
        codes[1, 4:] = 65535
        after = decoder(codes, lengths)
    end = 4 * config.samples_per_frame
    assert torch.equal(before[1, :end], after[1, :end])


@pytest.mark.parametrize("config", [TOY_16K, TOY_44K])
def test_every_parameter_can_be_trained(config: CodecConfig) -> None:
    decoder = toy_decoder(config)
    decoder(random_codes(2, 6), torch.tensor([6, 3])).square().mean().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_without_time_in_its_rotation_the_transformer_does_not_know_the_order_of_frames() -> None:
    order = torch.randperm(8, generator=torch.Generator().manual_seed(4))
    for config, blind in ((TOY_16K, True), (TOY_44K, False)):
        backbone = toy_decoder(config).generator.backbone
        attention = backbone.transformers[0].att
        frames = torch.randn(1, 8, config.hidden, generator=torch.Generator().manual_seed(3))
        turns = backbone.turns(8, frames.device)
        same = torch.allclose(
            attention(frames, turns, None)[:, order], attention(frames[:, order], turns, None), atol=1e-5
        )
        assert same is blind


def test_speech_longer_than_the_originals_4096_frames_is_decoded() -> None:
    config = CodecConfig(hidden=64, layers=1, heads=2, quant_dim=8, rope_axis="time")
    with torch.inference_mode():
        sound = toy_decoder(config)(random_codes(1, 4100))
    assert sound.shape == (1, 4100 * 320)
    assert sound.isfinite().all()


def test_group_statistics_of_a_padded_item_are_its_own() -> None:
    norm = Norm(64)
    x = torch.randn(2, 64, 10, generator=torch.Generator().manual_seed(5))
    valid = torch.ones(2, 1, 10)
    valid[1, 0, 6:] = 0
    assert torch.allclose(norm(x, valid)[1:, :, :6], norm(x[1:, :, :6]), atol=1e-5)


def test_overlapped_windows_add_up() -> None:
    hop = 2
    windows = torch.ones(1, 5, OVERLAP * hop)
    # The first sample of the middle part lies under the first three windows, the inner ones under four.
    assert overlap_add(windows).tolist() == [[2, 3, 3, 4, 4, 4, 4, 3, 3, 2]]
