"""The loops that move jobs along: place, stage, submit, watch, archive, learn. Each step is small and safe to repeat."""
