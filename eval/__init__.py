"""Numbers: analysers and scores that share nothing with what they judge.

``rhythm`` and ``tonality`` measure tempo and key, ``tagger`` names genre and instruments, ``reconstruction`` compares
a codec's output with its input, ``seam`` looks at joins, ``statistics`` says how sure a figure is.
"""
