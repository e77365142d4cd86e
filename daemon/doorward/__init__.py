"""Doorward: Single Packet Authorization for whole fleets."""

__version__ = "0.1.0"
