"""The group of all commands; each family of commands has a module."""

import click

from scripts.administration import migrations


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def cli() -> None:
    """Administer a Shelfsight database.

    Every command finds the database in the same way: --data names the data folder of an installation that scripts/start
    started on this machine. Without --data, the setting MONGODB_URL counts, or else the folder "data" of this clone. The
    database must be running.

    In containers, run the commands in a new container of the web image:

    \b
      docker compose run --rm --no-deps web python -m scripts.administration status
    """  # noqa: D301 -- click does not wrap a paragraph that begins with the character \b


cli.add_command(migrations.migrate)
cli.add_command(migrations.status)

if __name__ == "__main__":
    cli(prog_name="scripts/admin")
