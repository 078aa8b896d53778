"""Benchmarks of spikebench itself."""
