"""Taking recordings apart into stems."""
