"""The server half of the extension, against a real server and a real store."""

import json
from collections.abc import Callable

import pytest
from tornado.httpclient import HTTPClientError

from kernelevolve_lab.records import Candidate, OperatorRef, RunConfig
from kernelevolve_lab.records.events import CandidateProposed
from kernelevolve_lab.records.run import Reject
from kernelevolve_lab.store import Store

SOURCE = '#include "kel.h"\n// <script>alert(1)</script>\n'


@pytest.fixture
def store(store_url: str):
    opened = Store.open(store_url)
    yield opened
    opened.close()


@pytest.fixture
def run(store: Store) -> str:
    config = RunConfig(operator=OperatorRef(kind="registered", name="softmax", text="softmax"), target="cpu", language="cpp")
    run = store.create_run(config, "Softmax", {})
    store.append(run, CandidateProposed(candidate=Candidate(language="cpp", source=SOURCE, title="first")))
    return run


async def body(fetch: Callable, *parts: str, **options) -> dict:
    return json.loads((await fetch("kernelevolve", *parts, **options)).body)


async def refused(fetch: Callable, *parts: str, **options) -> HTTPClientError:
    with pytest.raises(HTTPClientError) as caught:
        await fetch("kernelevolve", *parts, **options)
    return caught.value


async def test_runs_are_listed(jp_fetch, run: str) -> None:
    (listed,) = (await body(jp_fetch, "runs"))["runs"]
    assert (listed["id"], listed["title"], listed["status"]) == (run, "Softmax", "interrupted")


async def test_a_run_shows_its_leaderboard(jp_fetch, run: str) -> None:
    found = await body(jp_fetch, "runs", run)
    (row,) = found["rows"]
    assert (row["title"], row["verdict"], row["speedup"]) == ("first", "waiting", None)


async def test_a_candidate_shows_its_source_as_text(jp_fetch, run: str, store: Store) -> None:
    candidate = next(iter(store.state(run).entries))
    response = await jp_fetch("kernelevolve", "runs", run, "candidates", candidate)
    assert response.headers["Content-Type"].startswith("application/json")
    assert json.loads(response.body)["source"] == SOURCE


async def test_steering_reaches_the_log(jp_fetch, run: str, store: Store) -> None:
    candidate = next(iter(store.state(run).entries))
    command = {"command": "reject", "candidate": candidate, "reason": "not this way"}
    answer = await body(jp_fetch, "runs", run, "steer", method="POST", body=json.dumps(command))
    state = store.state(run)
    assert state.seq == answer["accepted"]
    assert state.requests[-1].command == Reject(candidate=candidate, reason="not this way")
    assert state.entries[candidate].banned


async def test_what_is_no_command_is_refused(jp_fetch, run: str, store: Store) -> None:
    before = store.state(run).seq
    error = await refused(jp_fetch, "runs", run, "steer", method="POST", body='{"command": "format_disk"}')
    assert error.code == 400
    assert store.state(run).seq == before


@pytest.mark.parametrize("name", ["nothing-like-it", "..%2F..%2Fetc%2Fpasswd"])
async def test_unknown_runs_are_not_found(jp_fetch, name: str) -> None:
    assert (await refused(jp_fetch, "runs", name)).code == 404


async def test_nothing_is_served_without_a_token(http_server_client, jp_base_url, run: str) -> None:
    for path in ("runs", f"runs/{run}", f"runs/{run}/candidates/{'0' * 12}"):
        with pytest.raises(HTTPClientError) as caught:
            await http_server_client.fetch(f"{jp_base_url}kernelevolve/{path}", follow_redirects=False)
        assert caught.value.code in (302, 403)


async def test_a_new_notebook_holds_the_workbench(jp_fetch, jp_root_dir) -> None:
    (jp_root_dir / "sub").mkdir()
    for folder in ("", "sub"):
        made = await body(jp_fetch, "notebook", method="POST", body=json.dumps({"folder": folder}))
        cells = json.loads((jp_root_dir / made["path"]).read_text())["cells"]
        assert "kel.Workbench()" in "".join(cells[1]["source"])


async def test_a_store_that_cannot_be_read_says_so(jp_fetch, store_url: str, tmp_path) -> None:
    (tmp_path / "lab.db").write_bytes(b"this is not a database, and long enough to be sure of it" * 20)
    error = await refused(jp_fetch, "runs")
    assert error.code == 409
    assert "lab.db" in error.message
