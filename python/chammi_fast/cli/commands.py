"""A group of commands that are made when they are called for.

Reading the options of all commands would take longer than everything else that ``chammi-fast --help`` does.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar

import typer
from typer.core import TyperGroup
from typer.main import get_group

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class LazyGroup(TyperGroup):
    """A group that knows its commands by name.

    Attributes
    ----------
    members : name -> the function that is the command, or an app of further commands
    """

    members: ClassVar[Mapping[str, Callable[..., None] | typer.Typer]]

    def __init__(self, **attributes: Any) -> None:
        # The names are what a mistyped one is compared with.
        super().__init__(**attributes | {"commands": dict.fromkeys(self.members)})

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the base class's
        """Return the names in the order of the help."""
        return list(self.members)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the base class's
        """Make a command; None for an unknown name."""
        member = self.members.get(cmd_name)
        if member is None:
            return None
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        if isinstance(member, typer.Typer):
            app.add_typer(member, name=cmd_name)
        else:
            app.command(cmd_name)(member)
        return get_group(app).commands[cmd_name]

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - the base class's
        """List the commands with the first line of what each says of itself."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first_line(member)) for name, member in self.members.items()])


def _first_line(member: Callable[..., None] | typer.Typer) -> str:
    text = member.info.help if isinstance(member, typer.Typer) else inspect.getdoc(member)
    return str(text or "").partition("\n")[0]
