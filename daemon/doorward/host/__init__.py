"""Root's console on a host: status, open, close, firewall, audit."""
