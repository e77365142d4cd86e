"""The listener: the process that reads packets from the network."""
