"""The README says what is there: target table, commands, exit codes."""

from click.testing import CliRunner

from edgepack.cli import cli
from tests.readme import README, block, targets_table


def test_the_target_table_is_that_of_the_profiles() -> None:
    found = block("targets").search(README.read_text())
    assert found is not None
    assert found[2] == targets_table()


def test_every_command_has_help_with_an_example_and_stands_in_the_readme_or_its_own_help() -> None:
    top = CliRunner().invoke(cli, ["--help"]).output
    for name, command in cli.commands.items():
        assert f"  {name} " in top
        assert "Example: edgepack " in (command.help or ""), name


def test_six_commands_are_shown_with_their_output() -> None:
    found = block("commands").search(README.read_text())
    assert found is not None
    assert found[2].count("$ edgepack ") == 6
    assert "android-arm64-low" in found[2]
