"""The lab: system containers with systemd and sshd, an outsider, and one network that joins them.

It needs root, and nothing but the standard library and the programs that the Makefile installs.
"""
