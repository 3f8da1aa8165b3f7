"""The errors that bitfront raises on purpose.

Every message says what was given, what was expected and what to do; the command line prints it as one line.
"""

from __future__ import annotations


class BitfrontError(Exception):
    """Base class of all errors raised on purpose."""


class InvalidInput(BitfrontError, ValueError):
    """Something that the caller gave cannot be used (command line: exit code 2)."""


class UnknownFormat(InvalidInput):
    """A format name that the grammar does not know."""


class UnsupportedModel(InvalidInput):
    """The model cannot be traced, or holds no layer whose weights could be quantized."""


class InfeasibleBudget(InvalidInput):
    """No configuration meets the budgets; the message names the smallest values that can be met."""


class NonFiniteOutput(InvalidInput, ArithmeticError):
    """A model or a score produced NaN or infinity."""


class NotMeasured(InvalidInput):
    """A price was asked for that no measurement or model covers; bitfront refuses rather than guesses."""


class ExportMismatch(BitfrontError):
    """The exported artifact does not compute what the fake-quantized model computes."""


class NotFound(InvalidInput, LookupError):
    """Something was named that does not exist."""


class Conflict(InvalidInput):
    """What was asked does not fit the state that a thing is in."""


class Refused(InvalidInput, PermissionError):
    """The caller may not do this."""


class LeaseLost(BitfrontError):
    """A worker wrote for a job that is no longer its own; nothing was written."""
