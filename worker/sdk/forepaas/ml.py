"""The platform's machine learning: named here only to say that it is missing."""

raise ImportError("forepaas.ml: the platform's machine learning is not part of open-dpe")
