"""One frozen `Settings`, read once from the environment and a TOML file; the environment wins.

Every field is one documented setting. Its variable is ``AIPROJECT_`` and its flat name in capitals; its key in the file
(named by ``AIPROJECT_CONFIG``) is the flat name, or the field's name in the tables of its groups. `load_settings`
reports all complaints at once, names that are no setting included (`aiproject.setting_names`).
"""
