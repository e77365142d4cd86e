"""What is written down of a verdict: the line, fwknop's words, the audit file and its chain, counters."""
