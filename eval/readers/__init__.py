"""Data sets that people already have, as clips with labels: one module each."""
