"""The server side of the JupyterLab extension: it reads the store, so that runs can be seen and steered while a kernel is busy or dead."""

from typing import Any

from traitlets import Unicode
from traitlets.config import Configurable

from kernelevolve_lab import paths


class KernelEvolve(Configurable):
    """Configuration of the extension, as `c.KernelEvolve.store_url` in a Jupyter server configuration file."""

    store_url = Unicode(help="URL of the store; empty for the default of the command line and the notebooks.").tag(config=True)


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "kernelevolve_jupyter"}]


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    return [{"src": "labextension", "dest": "@kernelevolve/lab"}]


def _load_jupyter_server_extension(app: Any) -> None:
    from kernelevolve_jupyter.handlers import handlers

    url = KernelEvolve(parent=app).store_url or paths.default_store_url()
    app.web_app.add_handlers(".*$", handlers(app.web_app.settings["base_url"], url))
    app.log.info("KernelEvolve Lab: runs of %s", url.split("@")[-1])
