"""Our neurons against the libraries people use: ``python -m suites.regression.peers``."""
