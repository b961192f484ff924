"""An error of a handler, as its job keeps it."""

import os
import traceback

from worker.errors import DpeError
from worker.masking import masked


def described(error: BaseException) -> dict[str, str]:
    """An error as a job keeps it: its type, its text with the hint, the handler's traceback."""
    text = str(error) or repr(error)
    if isinstance(error, DpeError) and error.hint:
        text += f" ({error.hint})"
    return {"type": _kind(error), "message": masked(text), "traceback": masked(_trace(error))}


def _trace(error: BaseException) -> str:
    """The traceback from the handler's first line on; our own frames above it say nothing."""
    frames = traceback.TracebackException.from_exception(error)
    frames.stack = from_the_handler_on(frames.stack)
    return "".join(frames.format()).strip().replace("\0", "�")


def from_the_handler_on(stack: traceback.StackSummary) -> traceback.StackSummary:
    """A stack without our own frames above the handler's."""
    for at, frame in enumerate(stack):
        if f"{os.sep}action_" in frame.filename:
            return traceback.StackSummary.from_list(stack[at:])
    return stack


def _kind(error: BaseException) -> str:
    module = type(error).__module__
    name = type(error).__qualname__
    is_plain = module == "builtins" or module.startswith(("worker.", "action_"))
    return name if is_plain else f"{module}.{name}"
