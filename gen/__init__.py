"""What a musician does: load a model, make music from wishes, make given music longer, from Python or a command line.

The root package offers the front door lazily, under the same names: ``load``, ``generate``, ``extend``, ``Studio`` of
:mod:`.load`, ``Request`` and ``RequestError`` of :mod:`.request`, ``Music`` of :mod:`.generate`.
"""

from __future__ import annotations
