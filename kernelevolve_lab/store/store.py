"""The store: runs as logs of events, and blobs addressed by content."""

import difflib
import re
import secrets
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.exc import DBAPIError

from kernelevolve_lab.errors import StoreError, UnknownName
from kernelevolve_lab.paths import default_store_url
from kernelevolve_lab.records import RunConfig
from kernelevolve_lab.records.events import Event, Logged, RunEnded, RunStarted
from kernelevolve_lab.records.fold import RunFold
from kernelevolve_lab.records.run_state import RunState
from kernelevolve_lab.store.connect import connect
from kernelevolve_lab.store.lease import Lease, is_live
from kernelevolve_lab.store.payload import decode, digest_of, encode, references
from kernelevolve_lab.store.schema import BLOBS, DRIVES, EVENTS, RUNS
from kernelevolve_lab.store.summary import RunSummary, summarise

RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
CACHED_FOLDS = 16
_BATCH = 500


class Overtaken(StoreError):
    """Somebody else added an event first."""


@dataclass
class _CachedFold:
    fold: RunFold = field(default_factory=RunFold)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Store:
    """All runs of a user or a team. Safe to use from several threads, and by several processes at once.

    Every append is on disk when it returns. Methods raise `UnknownName` for a run that is not there and `StoreError` when the database
    fails.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = connect(url)
        self._writer = self._engine.execution_options(writes=True)
        self._folds: OrderedDict[str, _CachedFold] = OrderedDict()
        self._folds_lock = threading.Lock()

    @classmethod
    def open(cls, url: str | None = None) -> "Store":
        """Open (and where needed create or upgrade) the store at an SQLAlchemy URL or a path; by default the user's own."""
        return cls(url or default_store_url())

    def close(self) -> None:
        """Close all connections; the store can be used again afterwards."""
        self._engine.dispose()

    def __repr__(self) -> str:
        return f"Store({self._engine.url.render_as_string(hide_password=True)!r})"

    # Runs

    def create_run(self, config: RunConfig, title: str, environment: dict[str, str] | None = None) -> str:
        """Begin a run with its first event; return its id, which starts with the operator's name and the local time."""
        slug = re.sub(r"[^A-Za-z0-9_]+", "-", config.operator.name).strip("-")[:40] or "run"
        run = f"{slug}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        self.insert_run(run, [(time.time(), RunStarted(config=config, title=title, environment=environment or {}))])
        return run

    def insert_run(self, run: str, log: Sequence[tuple[float, Event]], *, imported: bool = False) -> None:
        """Add a whole run under an id that is free, in one transaction."""
        if not RUN_ID.fullmatch(run):
            raise StoreError(f"'{run}' cannot be the id of a run: it must be 1 to 64 letters, digits, - or _.")
        with self._writing() as connection:
            connection.execute(
                insert(RUNS).values(id=run, created=log[0][0], last_seq=len(log), imported=imported, summary=None, summary_seq=0)
            )
            self._insert(connection, run, 1, log)

    def exists(self, run: str) -> bool:
        """Whether there is such a run."""
        with self._reading() as connection:
            return connection.execute(select(RUNS.c.id).where(RUNS.c.id == run)).first() is not None

    def is_imported(self, run: str) -> bool:
        """Whether the run came from a file, so that its text is somebody else's."""
        with self._reading() as connection:
            imported = connection.execute(select(RUNS.c.imported).where(RUNS.c.id == run)).scalar()
        if imported is None:
            raise self._unknown(run)
        return imported

    def find(self, run: str) -> str:
        """The full id of a run named by its id or by a prefix that only it has."""
        with self._reading() as connection:
            pattern = RUNS.c.id.startswith(run, autoescape=True)
            found = connection.execute(select(RUNS.c.id).where(pattern).order_by(RUNS.c.id).limit(4)).scalars().all()
        if run in found or (run and len(found) == 1):
            return run if run in found else found[0]
        if run and len(found) > 1:
            raise UnknownName(f"'{run}' fits several runs ({', '.join(found[:3])}{', …' if len(found) > 3 else ''}); give more of the id.")
        raise self._unknown(run)

    def runs(self) -> list[RunSummary]:
        """All runs, newest first."""
        query = select(RUNS, DRIVES).outerjoin_from(RUNS, DRIVES, RUNS.c.id == DRIVES.c.run).order_by(RUNS.c.created.desc())
        with self._reading() as connection:
            rows = connection.execute(query).all()
        now = time.time()
        found: list[RunSummary] = []
        for row in rows:
            driven = row.run is not None and is_live(row, now)
            if row.summary is not None and row.summary_seq == row.last_seq:
                summary = RunSummary.model_validate_json(row.summary)
            else:
                state = self.state(row.id)
                summary = summarise(state, imported=row.imported)
                if not driven:
                    self._keep_summary(summary, state.seq)
            if summary.status in ("running", "paused") and not driven:
                summary = summary.model_copy(update={"status": "interrupted"})
            found.append(summary)
        return found

    def is_driven(self, run: str) -> bool:
        """Whether a live process drives the run."""
        with self._reading() as connection:
            row = connection.execute(select(DRIVES).where(DRIVES.c.run == run)).first()
        return row is not None and is_live(row, time.time())

    def drive(self, run: str) -> Lease:
        """Take the lease that lets one process drive a run, as a context manager; raise `RunBusy` where a live process holds it."""
        if not self.exists(run):
            raise self._unknown(run)
        try:
            return Lease(self._engine, run).take()
        except DBAPIError as error:
            raise self._failed(error) from None

    # Events

    def append(self, run: str, event: Event) -> Logged:
        """Add one event to a run; it is durable when this returns."""
        return self.append_all(run, [event])[0]

    def append_all(self, run: str, events: Sequence[Event], *, last: int | None = None) -> list[Logged]:
        """Add several events that stand or fall together. Where `last` is given, they are added only if the run's last event has that
        number, so that nothing came in between a decision and its record; raises `Overtaken` otherwise."""
        with self._writing() as connection:
            row = (RUNS.c.id == run) if last is None else (RUNS.c.id == run) & (RUNS.c.last_seq == last)
            raised = update(RUNS).where(row).values(last_seq=RUNS.c.last_seq + len(events)).returning(RUNS.c.last_seq)
            after = connection.execute(raised).scalar()
            if after is None:
                if last is not None and self.exists(run):
                    raise Overtaken(f"Run {run} has gone on beyond event {last}.")
                raise self._unknown(run)
            first, now = after - len(events) + 1, time.time()
            self._insert(connection, run, first, [(now, event) for event in events])
        if any(isinstance(event, RunEnded) for event in events):
            state = self.state(run)
            self._keep_summary(summarise(state, imported=self.is_imported(run)), state.seq)
        return [Logged(run=run, seq=seq, time=now, event=event) for seq, event in enumerate(events, first)]

    def read(self, run: str, after: int = 0, limit: int | None = None) -> list[Logged]:
        """The events with a sequence number above `after`, in order, at most `limit`."""
        query = select(EVENTS.c.seq, EVENTS.c.time, EVENTS.c.payload).where(EVENTS.c.run == run, EVENTS.c.seq > after)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(EVENTS.c.seq).limit(limit)).all()
            blobs = self._blobs(connection, {digest for row in rows for digest in references(row.payload)})
        if not rows and after == 0 and not self.exists(run):
            raise self._unknown(run)
        try:
            return [Logged(run=run, seq=row.seq, time=row.time, event=decode(row.payload, blobs)) for row in rows]
        except (ValueError, KeyError) as error:
            raise StoreError(f"The store holds a damaged event in run {run}: {str(error).splitlines()[0]}") from error

    def state(self, run: str) -> RunState:
        """The run as it stands; only the events since the last call are read."""
        with self._folds_lock:
            cached = self._folds.setdefault(run, _CachedFold())
            self._folds.move_to_end(run)
            while len(self._folds) > CACHED_FOLDS:
                self._folds.popitem(last=False)
        with cached.lock:
            for logged in self.read(run, after=cached.fold.state.seq):
                cached.fold.apply(logged)
            return cached.fold.state

    # Blobs

    def put_blob(self, data: bytes) -> str:
        """Keep some bytes; return the digest to get them by."""
        digest = digest_of(data)
        with self._writing() as connection:
            self._insert_blobs(connection, {digest: data})
        return digest

    def get_blob(self, digest: str) -> bytes:
        """The bytes of a digest."""
        with self._reading() as connection:
            found = self._blobs(connection, {digest})
        if digest not in found:
            raise UnknownName(f"The store has no blob {digest[:80]}.")
        return found[digest]

    # Inner workings

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        try:
            with self._writer.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise self._failed(error) from None

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise self._failed(error) from None

    def _insert(self, connection: Connection, run: str, first: int, log: Iterable[tuple[float, Event]]) -> None:
        rows, blobs = [], {}
        for seq, (when, event) in enumerate(log, first):
            payload, external = encode(event)
            blobs |= external
            rows.append({"run": run, "seq": seq, "time": when, "kind": event.kind, "payload": payload})
        self._insert_blobs(connection, blobs)
        connection.execute(insert(EVENTS), rows)

    def _insert_blobs(self, connection: Connection, blobs: dict[str, bytes]) -> None:
        """A blob that another transaction adds at the same moment is the same blob, so losing that race is no error."""
        for digest, data in blobs.items():
            row = {"digest": digest, "size": len(data), "data": zlib.compress(data, 6)}
            absent = ~select(BLOBS.c.digest).where(BLOBS.c.digest == digest).exists()
            values = select(*(bindparam(name, value, BLOBS.c[name].type) for name, value in row.items())).where(absent)
            connection.execute(insert(BLOBS).from_select(list(row), values))

    def _blobs(self, connection: Connection, digests: set[str]) -> dict[str, bytes]:
        wanted, found = sorted(digests), {}
        for start in range(0, len(wanted), _BATCH):
            query = select(BLOBS.c.digest, BLOBS.c.data).where(BLOBS.c.digest.in_(wanted[start : start + _BATCH]))
            found |= {digest: zlib.decompress(data) for digest, data in connection.execute(query)}
        return found

    def _keep_summary(self, summary: RunSummary, seq: int) -> None:
        """Cache a summary; where that fails (a store that may only be read) the next list works it out again."""
        newer = update(RUNS).where(RUNS.c.id == summary.id, RUNS.c.summary_seq < seq)
        try:
            with self._writer.begin() as connection:
                connection.execute(newer.values(summary=summary.model_dump_json(), summary_seq=seq))
        except DBAPIError:
            return

    def _unknown(self, run: str) -> UnknownName:
        with self._reading() as connection:
            known = connection.execute(select(RUNS.c.id).order_by(RUNS.c.created.desc()).limit(1000)).scalars().all()
        near = difflib.get_close_matches(run, known, n=3, cutoff=0.5) or known[:3]
        hint = f"the nearest: {', '.join(near)}." if near else "the store is empty."
        return UnknownName(f"There is no run '{run}' in {self._shown}; {hint}")

    def _failed(self, error: DBAPIError) -> StoreError:
        return StoreError(f"The store {self._shown} failed: {str(error.orig).strip().splitlines()[0]}.")

    @property
    def _shown(self) -> str:
        url = self._engine.url
        return url.database if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)
