"""Slurm clusters over SSH."""
