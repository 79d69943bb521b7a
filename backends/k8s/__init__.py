"""Kubernetes: Jobs and their pods through the API server."""
