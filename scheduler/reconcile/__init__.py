"""The loops that move jobs along: place, stage, submit, watch, archive, learn. Every step is safe to repeat."""
