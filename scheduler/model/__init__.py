"""The words of Berth: frozen dataclasses, the life of a job, errors and units. Standard library only."""
