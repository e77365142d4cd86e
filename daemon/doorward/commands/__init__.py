"""doorward-exec, the process that runs commands and sends mail, and how others give it orders."""
