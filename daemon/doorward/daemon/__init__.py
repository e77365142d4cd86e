"""doorwardd: the composition root. Configuration to parts to one loop."""

from doorward.daemon.cli import main

__all__ = ["main"]
