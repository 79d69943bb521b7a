"""Pods behind a door: instances that are runs of a job backend, and how Berth reaches their ports."""
