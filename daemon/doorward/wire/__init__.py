"""Formats: bytes to values and back. No keys, clock, randomness or I/O."""
