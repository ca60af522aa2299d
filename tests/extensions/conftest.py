import asyncio

import pytest
import pytest_asyncio

# The plugin's fixtures for this folder alone: loaded as a plugin, its event loop would be every test's.
from pytest_jupyter.jupyter_core import *  # noqa: F403
from pytest_jupyter.jupyter_server import *  # noqa: F403


@pytest_asyncio.fixture
async def jp_asyncio_loop() -> asyncio.AbstractEventLoop:
    """The loop of the test, so that the server answers while the test waits; the plugin's own would be another."""
    return asyncio.get_running_loop()


@pytest.fixture
def store_url(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'lab.db'}"


@pytest.fixture
def jp_server_config(store_url: str) -> dict:
    """A server with the extension on, a store of its own, and no unauthenticated access."""
    return {
        "ServerApp": {"jpserver_extensions": {"kernelevolve_jupyter": True}, "allow_unauthenticated_access": False},
        "KernelEvolve": {"store_url": store_url},
    }
