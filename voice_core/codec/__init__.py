"""Turns codec codes into sound: XCodec2's decoder, at 16 kHz and at 44.1 kHz."""
