"""The packet filter: our nftables table, and other firewalls beside it."""
