"""Figures side by side with a peer or a limit, taken in one run. ``python -m bench`` runs all of them."""
