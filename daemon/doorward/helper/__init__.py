"""The helper, the process that changes the firewall: its loop, its client in the listener, their messages."""
