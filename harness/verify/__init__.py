"""Checks of records that somebody hands in. A record is untrusted: it is read, never executed, and what it says is compared."""
