"""The database: engine, errors, schema, migrations and the batch runner."""
