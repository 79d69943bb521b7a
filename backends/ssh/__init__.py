"""Hosts reached by SSH: the connection that every remote backend stands on, and files over it."""
