"""Sound without a network: a waveform, joining waveforms, writing them as files."""
