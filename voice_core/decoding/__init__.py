"""Codes out of a network: sampling, slots, and the batch decoder that admits, steps and retires rows."""
