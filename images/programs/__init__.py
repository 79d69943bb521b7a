"""Programs that travel to systems and nodes: one file each, for Python 3.6 and later, its standard library only."""
