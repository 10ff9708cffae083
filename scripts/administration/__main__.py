"""The group of all commands; each family of commands has a module."""

import click

from scripts.administration import account_list, api_keys, key_rotation, migrations, receipt_keys, users
from scripts.administration.database import data_option


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@data_option
def cli() -> None:
    """Administer a Shelfsight database: the people and the keys that may use the service, and the version of the data.

    Every command finds the database in the same way: --data names the data folder of an installation that scripts/start
    started on this machine. It can be given before or after the name of the command. Without --data, the setting
    MONGODB_URL counts, or else the folder "data" of this clone. The database must be running.

    Whoever can run these commands has all rights. Each change of a user or a key is recorded in the security log, with
    the actor "operator". A change takes effect in a running service within five seconds.

    In containers, run the commands in a new container of the web image:

    \b
      docker compose run --rm --no-deps web python -m scripts.administration status

    \b
    Examples:
      scripts/admin create-user alice --role admin --stores '*'
      scripts/admin --data /srv/shelfsight create-key --name camera-7 --scope images:upload --stores 'Main Street'
      scripts/admin COMMAND --help
    """  # noqa: D301 -- click does not wrap a paragraph that begins with the character \b


for command in (
    users.create_user,
    users.set_role,
    users.set_stores,
    users.disable_user,
    users.enable_user,
    users.reset_password,
    api_keys.create_key,
    api_keys.revoke_key,
    account_list.list_accounts,
    key_rotation.rotate_keys,
    receipt_keys.receipt_key,
    receipt_keys.revoke_receipt_key,
    migrations.migrate,
    migrations.status,
):
    cli.add_command(command)

if __name__ == "__main__":
    cli(prog_name="scripts/admin")
