"""One TOML file, overridden by the environment: every setting of every command.

Each setting is declared once, as a field of its section's struct (``sections``, ``stream.policy``,
``stream.kafka.connection``). ``settings`` makes the table of them, ``load`` reads and checks them,
``render`` writes the example file and the docs. Options of the command line stand above all.
Secrets come from the environment or from files of their own, and are never shown.
"""
