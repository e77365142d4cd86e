"""Files to frozen values; every problem is path:line."""
