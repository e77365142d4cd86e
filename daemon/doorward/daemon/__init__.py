"""doorwardd's composition root: builds the parts from the configuration and starts the processes."""

from doorward.daemon.cli import main

__all__ = ["main"]
