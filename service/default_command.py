"""A group of commands that is a command itself when none of the group is named."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class DefaultCommand(TyperGroup):
    """``bitfront proxies JOB.yaml`` beside ``bitfront proxies evolve JOB.yaml``: the first command is the default."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default in front where no command is named and no help is asked for."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = [next(iter(self.commands)), *args]
        return super().parse_args(ctx, args)
