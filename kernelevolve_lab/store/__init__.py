"""The store: event log and artifacts of all runs, in SQLite by default."""

from kernelevolve_lab.store.lease import Lease
from kernelevolve_lab.store.store import RUN_ID, Overtaken, Store
from kernelevolve_lab.store.summary import RunSummary

__all__ = ["RUN_ID", "Lease", "Overtaken", "RunSummary", "Store"]
