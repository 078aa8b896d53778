"""Meters: small typed measurements that keep every sample."""
