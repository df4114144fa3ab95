"""Voices to imitate: recordings read and checked, written out, and kept. No torch here, except to transcribe."""
