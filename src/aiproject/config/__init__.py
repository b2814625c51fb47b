"""One frozen `Settings` object, read once from the environment and a TOML file; the environment takes precedence.

Every field is one documented setting. Its variable is ``AIPROJECT_`` and its flat name in capitals; its key in the file
(named by ``AIPROJECT_CONFIG``) is the flat name, or the field's name in the tables of its groups. `load_settings`
reports all errors at once, including names that are not settings (`aiproject.setting_names`).
"""
