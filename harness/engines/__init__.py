"""Engines: where runs execute. An engine maps plans to records."""
