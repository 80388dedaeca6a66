"""Judges that other people trained, read from their own files: one module each, all of them ``Embedder`` s."""
