"""The command `ovfast`: one module a subcommand, loaded when it is called."""
