"""The old names: `forepaas.worker.connect`, `.connector`, `.settings`."""
