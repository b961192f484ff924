"""Texts in handlers' frames are Python's own strings, as with pandas 1 and 2.

pandas 3 puts them into Arrow's memory: a None becomes NaN, and a column of texts is no `object` any
more, so that handlers which ask for either would do something else here than where they were
written.  And a frame of five rows with a column added takes 2.6 times as long to make.  pandas
keeps the switch until its version 4
(https://pandas.pydata.org/docs/user_guide/migration-3-strings.html).
"""

import contextlib
import warnings

import pandas as pd


def keep_as_objects() -> None:
    """Let frames of this process hold texts as objects; a handler may ask for `dtype="str"`."""
    with warnings.catch_warnings(), contextlib.suppress(pd.errors.OptionError):
        warnings.simplefilter("ignore")  # "will be removed in pandas 4.0"
        pd.set_option("future.infer_string", False)
