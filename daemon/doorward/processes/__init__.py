"""What every process of the daemon starts from: its command line and its configuration."""
