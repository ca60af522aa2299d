"""Run by Alembic; the connection comes from `store.migrate`, which also holds the transaction."""

from alembic import context

from kernelevolve_lab.store.schema import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
