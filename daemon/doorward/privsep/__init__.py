"""Two processes: the listener reads strangers' bytes and has no power, the helper has power and reads none of them."""
