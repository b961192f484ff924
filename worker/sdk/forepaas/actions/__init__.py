"""The platform's ready-made actions: named here only to say that they are missing."""

raise ImportError(
    "forepaas.actions: the platform's ready-made actions are not part of open-dpe;"
    " an aggregate is one query: connect(...).query('INSERT INTO ... SELECT ... GROUP BY ...')"
)
