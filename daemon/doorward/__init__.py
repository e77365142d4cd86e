"""Doorward: Single Packet Authorization, a daemon and a client that speak fwknop 2.x."""

__version__ = "0.1.0"
