"""Who may do what, and what must not be read: pure code that knows nothing of the store."""
