"""One TOML file, overridden by the environment: every setting of every command.

``sections`` lists the settings, ``load`` reads and checks them, ``render`` writes them as TOML:
what is in force (``hearback config show``) and the example file. Options of the command line stand
above both and belong to the commands. Secrets come from the environment or from files of their own,
and are never shown.
"""
