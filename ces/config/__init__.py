"""Settings: each declared once, and passed down whole.

::

    values.py     a kind: how a value is written, its unit, its bounds (pure text to value)
    settings.py   option(): one declaration; resolve(): one object from command line, environment and file
    toml.py       TOML with the line of each key, for every file that people write
    file.py       the TOML file of a role's settings
    link.py       LinkSettings: what every role has

A role adds its own options (`ces.hub.settings`, `ces.repeater.settings`). `ces.tap.options` makes the command
line from them and `ces.tap.reference` makes docs/settings.md.
"""
