"""The command `pairmill`: its verbs, its exit codes, and errors as sentences.

Exit codes: 0 done; 1 the run failed; 2 the user's input is wrong, nothing was written; 130 Ctrl-C; 143 SIGTERM.
Importing this imports click and nothing else of weight: each verb imports what it needs when it runs.
"""

import contextlib
import logging
import os
import signal
import sys
import traceback
from typing import Any, NoReturn

import click

from flows.commands import (
    asking,
    background,
    captioning,
    comparing,
    demonstrating,
    evaluating,
    exploring,
    forgetting,
    planning,
    reporting,
    running,
    teaching,
)
from flows.environment import quiet_environment
from schemas.errors import PairmillError

_ANY_LENGTH = 1_000
_INTERRUPTED = "Query interrupted"  # the RuntimeError that DuckDB makes of what a signal's handler raises under it


class Stopped(BaseException):
    """SIGTERM: unwinds like Ctrl-C, so that everything is closed on the way."""

    heard = False


class Pairmill(click.Group):
    """The group of verbs, which turns what they raise into sentences and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb."""
        ctx.obj = {"debug": False}
        try:
            return super().invoke(ctx)
        except PairmillError as error:
            _leave(ctx, error, f"error: {error}", error.exit_code)
        except (KeyboardInterrupt, Stopped) as error:
            _leave(ctx, error, _stopped(ctx), 143 if isinstance(error, Stopped) else 130)
        except BrokenPipeError:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # whoever reads has read enough
            ctx.exit(0)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if str(error) == _INTERRUPTED:
                _leave(ctx, error, _stopped(ctx), 143 if Stopped.heard else 130)
            said = f"{type(error).__name__}: {error}".rstrip(": ")
            _leave(ctx, error, f"error: {said} (this is not foreseen; --debug shows where it happened)", 1)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs with their whole summaries; where the terminal is narrow they are folded, not cut."""
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(_ANY_LENGTH)) for name, command in found if command])


def _leave(ctx: click.Context, error: BaseException, sentence: str, code: int) -> NoReturn:
    if ctx.obj["debug"]:
        traceback.print_exception(error)
    click.echo(sentence, err=True)
    ctx.exit(code)


def _stopped(ctx: click.Context) -> str:
    if ctx.invoked_subcommand in ("run", "demo", "train", "compare"):
        return "Stopped. What is committed stays; run the same command again to go on."
    return "Stopped."


@click.group(cls=Pairmill, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="pairmill")
def cli() -> None:
    """Curate image-text pairs by a specification, ask about them, and train on them."""


_GROUPS = (
    demonstrating, running, planning, background, asking, reporting, exploring, teaching, evaluating, comparing,
    captioning, forgetting,
)  # fmt: skip
for _verb in (verb for group in _GROUPS for verb in group.VERBS):
    cli.add_command(_verb)


def main() -> None:
    """The entry point of the installed command."""
    quiet_environment()
    _log_warnings()
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        cli.main(prog_name="pairmill")
    except SystemExit as leaving:
        _leave_at_once(leaving.code)


def _log_warnings() -> None:
    """Print warnings of libraries, but for Prefect's.

    A root without a handler would get one from the first library that calls `logging.info`, which prints everything.
    """
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    handler.addFilter(lambda record: not record.name.startswith("prefect"))
    logging.getLogger().addHandler(handler)


def _leave_at_once(code: Any) -> NoReturn:
    """End the process without waiting for threads: where its server is gone, Prefect's would try for minutes."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _on_sigterm(number: int, frame: Any) -> NoReturn:
    Stopped.heard = True
    raise Stopped


if __name__ == "__main__":
    main()
