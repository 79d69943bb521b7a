"""Programs that travel to the node of a pod; self-contained, for Python 3.6 and later, without root."""
