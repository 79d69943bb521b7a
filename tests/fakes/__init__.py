"""Fakes that keep real state and pass the same contract as the real thing."""
