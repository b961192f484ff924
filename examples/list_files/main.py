"""Lists the files of a bucket, for the steps of a workflow that come after."""

from forepaas.core.settings import PARAMS
from forepaas.dwh import connect


def list_files(event):
    """Return the names in the bucket PARAMS["bucket"] that end in PARAMS["suffix"]."""
    names = connect(f"data_store/{PARAMS['bucket']}").list_filename()
    return [name for name in sorted(names) if name.endswith(PARAMS["suffix"])]
