"""A JupyterLab of its own on the loopback, and a page in it that is driven by command ids rather than by menus."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
from playwright.sync_api import Browser, Page

HERE = Path(__file__).parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Lab:
    """A JupyterLab without a token whose settings, workspaces and data live in `home` alone."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.root = home / "notebooks"
        self.root.mkdir(parents=True)
        self.base = f"http://127.0.0.1:{(port := _free_port())}"
        self.home = home
        settings = home / "settings"
        folders = {
            name: str(home / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
        }
        self.set("@jupyterlab/apputils-extension", "notification", {"fetchNews": "false", "checkForUpdates": False})
        self.set("@jupyterlab/docmanager-extension", "plugin", {"autosave": False})
        self.environment = {
            **os.environ,
            **folders,
            "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
            "JUPYTERLAB_SETTINGS_DIR": str(settings),
            "KERNELEVOLVE_HOME": str(home / "kernelevolve"),
            "PYTHONPATH": os.pathsep.join((str(HERE.parent / "widgets"), os.environ.get("PYTHONPATH", ""))),
            **environment,
        }
        self.log = (home / "lab.log").open("w")
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
        command += [
            "--ServerApp.port_retries=0",
            "--IdentityProvider.token=",
            "--ServerApp.password=",
            "--ServerApp.disable_check_xsrf=True",
        ]
        command += ["--LabApp.expose_app_in_browser=True", f"--ServerApp.root_dir={self.root}"]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT, env=self.environment)
        self._await_answer(60)

    def set(self, extension: str, plugin: str, values: dict) -> None:
        """Override a setting of JupyterLab."""
        folder = self.home / "settings" / extension
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{plugin}.jupyterlab-settings").write_text(json.dumps(values))

    def _await_answer(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.base}/api", timeout=2).read()
                return
            time.sleep(0.1)
        raise RuntimeError(f"JupyterLab did not come up:\n{(self.home / 'lab.log').read_text()[-3000:]}")

    def write(self, name: str, *cells: str) -> None:
        """A notebook of code cells."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.root / name)

    def close(self) -> None:
        """Ask the server to end, then make it."""
        with contextlib.suppress(OSError):
            urllib.request.urlopen(urllib.request.Request(f"{self.base}/api/shutdown", method="POST"), timeout=5).read()
        for end in (lambda: None, self.process.terminate, self.process.kill):
            end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(8)
                break
        self.log.close()


class LabPage:
    """One page; `errors` are the console's, `requests` the addresses that left the loopback."""

    def __init__(self, browser: Browser, lab: Lab, size: tuple[int, int] = (1500, 1000), dark: bool = False) -> None:
        self.lab = lab
        context = browser.new_context(viewport={"width": size[0], "height": size[1]})
        self.page: Page = context.new_page()
        self.page.set_default_timeout(30_000)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: None if self._local(request.url) else self.requests.append(request.url))
        self.dark = dark

    def _local(self, url: str) -> bool:
        return url.startswith((self.lab.base, "data:", "blob:", self.lab.base.replace("http", "ws")))

    def command(self, name: str, **arguments) -> None:
        """Run a command of JupyterLab and wait for it."""
        self.page.evaluate("([id, args]) => window.jupyterapp.commands.execute(id, args).then(() => null)", [name, arguments])

    def open(self, notebook: str) -> None:
        """Open a notebook in a clean workspace and wait until its kernel is idle."""
        self.page.goto(f"{self.lab.base}/lab/tree/{notebook}?reset", wait_until="domcontentloaded")
        self.page.wait_for_selector("#jupyterlab-splash", state="detached", timeout=90_000)
        self.page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=60_000)
        if self.dark:
            self.command("apputils:change-theme", theme="JupyterLab Dark")
            self.page.wait_for_selector("body[data-jp-theme-light=false]", state="attached")
        self.wait_idle()
        self.command("application:toggle-left-area") if self.page.locator("#jp-left-stack:visible").count() else None

    def wait_idle(self) -> None:
        self.page.wait_for_function(
            "() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'", timeout=90_000
        )

    def run_all(self, wait: bool = True) -> None:
        """Run every cell; without `wait` for cells that go on."""
        self.page.evaluate(
            "() => { window.ran = false; window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => { window.ran = true; }); }"
        )
        if wait:
            self.page.wait_for_function("() => window.ran", timeout=120_000)

    def python(self, expression: str):
        """The value of an expression in the notebook's kernel, as far as JSON knows it."""
        reply = self.page.evaluate(
            """async (expression) => {
            const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
            const asked = { code: '', store_history: false, user_expressions: { value: `__import__('json').dumps(${expression})` } };
            const reply = await kernel.requestExecute(asked).done;
            return reply.content.user_expressions.value; }""",
            expression,
        )
        if reply["status"] != "ok":
            raise RuntimeError(f"{reply['ename']}: {reply['evalue']}")
        return json.loads(ast.literal_eval(reply["data"]["text/plain"]))

    def save(self) -> Path:
        """Save the notebook and return its file."""
        self.command("docmanager:save")
        name = self.page.evaluate("() => window.jupyterapp.shell.currentWidget.context.path")
        return self.lab.root / name

    def close(self) -> None:
        self.page.context.close()
