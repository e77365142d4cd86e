"""The command line `doorward`."""
