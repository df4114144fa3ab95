import numpy as np
import pytest

from voice_core.audio.waveform import Waveform
from voice_core.errors import SynthesisError


def test_a_waveform_knows_its_duration_and_peak() -> None:
    waveform = Waveform(np.array([0.1, -0.5, 0.25, 0.0], dtype=np.float32), 8)
    assert waveform.seconds == 0.5
    assert waveform.peak == 0.5


def test_a_waveform_without_samples_is_silent() -> None:
    waveform = Waveform(np.zeros(0, dtype=np.float32), 16000)
    assert waveform.seconds == 0
    assert waveform.peak == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_an_error(value: float) -> None:
    with pytest.raises(SynthesisError, match="1 of 3 samples"):
        Waveform(np.array([0, value, 0], dtype=np.float32), 16000)


@pytest.mark.parametrize(
    "samples", [np.zeros((1, 4), np.float32), np.zeros(4), np.zeros(4, np.int16), np.float32(0).reshape(())]
)
def test_samples_of_another_shape_or_type_are_refused(samples: np.ndarray) -> None:
    with pytest.raises(ValueError, match="samples"):
        Waveform(samples, 16000)


def test_a_rate_must_be_above_zero() -> None:
    with pytest.raises(ValueError, match="sample_rate"):
        Waveform(np.zeros(4, np.float32), 0)
