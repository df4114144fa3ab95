"""Voices to imitate: recordings read and checked, encoded, written down, and kept."""
