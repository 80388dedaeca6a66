"""What a musician does: load a model, make music from wishes, make given music longer, from Python or a command line.

The root package offers, lazily: ``load`` (from :mod:`.load`), ``Studio`` (:mod:`.load`), ``Request`` (:mod:`.request`),
``Music`` (:mod:`.generate`), ``generate`` and ``extend`` (functions of :mod:`.generate` and :mod:`.extend` that load the
embedded model once).
"""

from __future__ import annotations
