"""The versions of the store's schema, as Alembic migrations that `store.migrate` applies when a store is opened."""

HEAD = "0001"
