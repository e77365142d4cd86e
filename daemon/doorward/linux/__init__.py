"""What only Linux has, each once: netlink, seccomp, privileges, files, channels, systemd, signals."""
