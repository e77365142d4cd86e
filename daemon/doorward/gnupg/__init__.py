"""gpg in a process of its own: what supervises it, how others speak to it, what they say."""
