"""Programs for the login node; they travel there as text and are not imported here."""
