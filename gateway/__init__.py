"""The edge in front of pods: names, TLS, and a way to each port that has a name."""
