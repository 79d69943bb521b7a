"""This machine as a system."""
