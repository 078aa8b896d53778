"""The commands of the command line, one module each. Only this folder prints."""
