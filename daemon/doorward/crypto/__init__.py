"""Keys: seal() and unseal(), one module an envelope."""
