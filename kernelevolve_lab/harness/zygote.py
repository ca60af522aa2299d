"""The process that candidates that are Python modules are forked from: it has torch imported, and runs nothing of theirs.

Started by `forking.py`: zygote CONTROL_FD DEVICE CONFINED EMULATED COUNTER, of which EMULATED is a description of a GPU that is not
here, as `languages.absent_gpu` has it, or empty, and COUNTER the library of `operator_counter.py`, or empty. Its first packet says what
the judge must know before any candidate is there; then it takes spawn requests as JSON, with their descriptors: channel, source, log and
status, and those that the request names under `more`.
"""

from __future__ import annotations

import array
import faulthandler
import gc
import json
import os
import signal
import socket
import sys
import traceback
from typing import Any, NoReturn

import torch

from kernelevolve_lab.harness import isolation, numerics, operator_counter, packets, scratch
from kernelevolve_lab.harness.python_host import Host, explain
from kernelevolve_lab.harness.trace import traced

SHARED_BYTES = 16 << 30
FILE_BYTES = 1 << 28
SCRATCH_MB = 512
MAX_DESCRIPTORS = 8
_NOT_STARTED = 121
"""The exit status of a child that did not come as far as its candidate."""


def _host(channel: socket.socket, device: str) -> Host:
    if device == "cpu":
        return Host(channel, device)
    from kernelevolve_lab.harness.cuda_host import CudaHost

    return CudaHost(channel, device)


def _candidate(request: dict[str, Any], fds: list[int], device: str, confined: bool) -> NoReturn:
    """The life of a child that was forked for a candidate."""
    channel, source, log, _ = fds[:4]
    more = dict(zip(request["more"], fds[4:], strict=True))
    isolation.adopt_descriptor(log, 1)
    os.dup2(1, 2)
    try:
        host = _host(socket.socket(fileno=channel), device)
        host.prepare()
        isolation.limit(request["heap_bytes"], SHARED_BYTES if device == "cpu" else None, FILE_BYTES)
        if confined:
            isolation.confine()
        isolation.hide()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(_NOT_STARTED)
    faulthandler.enable(all_threads=False)
    torch.set_num_threads(request["threads"])
    host.reply(packets.HELLO, 0, 0)
    folder = os.getcwd()
    with os.fdopen(source, "rb") as file:
        text = file.read()
    if "kernels" in more:
        scratch.take_kernels(more["kernels"], request["kernels"], os.path.join(folder, scratch.KERNELS))
    try:
        if "kept" in more:
            scratch.put_back(more["kept"], folder)
        host.load(text, folder)
        if "keep" in more:
            scratch.keep(folder, more["keep"])
        if request["threads_only"]:
            host.threads_only = True
            isolation.forbid_processes()
    except BaseException as error:
        traceback.print_exc()
        print(explain(error), file=sys.stderr, flush=True)
        os._exit(packets.LOAD_FAILED)
    host.reply(packets.READY, 0, 0)
    host.serve()


def _spawn(request: dict[str, Any], fds: list[int], device: str, confined: bool) -> NoReturn:
    """Between the zygote and the candidate: the new namespaces' first process, which tells how the candidate ended, and ends all that it
    started by ending itself."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    status = fds[3]
    # CUDA does not start where /proc is of another process namespace than its own, and a nested sandbox cannot mount one.
    own_processes = confined and device == "cpu"
    if confined:
        isolation.own_namespaces(SCRATCH_MB, own_processes)
    if own_processes:
        if pid := os.fork():
            for fd in fds:
                os.close(fd)
            os.waitpid(pid, 0)
            os._exit(0)
        isolation.die_with_parent()
        isolation.hide()
    else:
        isolation.adopt_orphans()
    pid = os.fork()
    if pid == 0:
        if not own_processes:
            isolation.die_with_parent()
        os.chdir("/tmp" if confined else request["folder"])
        _candidate(request, fds, device, confined)
    for fd in (*fds[:3], *fds[4:]):
        os.close(fd)
    while True:
        ended, how = os.waitpid(-1, 0)
        if ended == pid:
            os.write(status, how.to_bytes(4, "little"))
            if not own_processes:
                isolation.end_children()
            os._exit(0)


def main() -> None:
    """Serve spawn requests until the judge closes the socket."""
    control, device, confined = socket.socket(fileno=int(sys.argv[1])), sys.argv[2], sys.argv[3] == "1"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by themselves
    isolation.hide()
    if sys.argv[4]:
        from kernelevolve_lab.languages import triton_interpreter

        triton_interpreter.install(json.loads(sys.argv[4]))
    if device != "cpu":  # what children need, loaded once; the device itself cannot be started before a fork
        import triton  # noqa: F401

        from kernelevolve_lab.harness import cuda_host  # noqa: F401
    traced(torch.neg, (torch.zeros(1),))  # the first trace imports much
    numerics.set_vector_library_up()
    told: dict[str, Any] = {"torch": torch.__version__}
    if sys.argv[5]:
        told |= {"counter": operator_counter.install(sys.argv[5]), "composite": operator_counter.composite()}
    gc.collect()
    gc.freeze()
    control.send(json.dumps(told).encode())
    while True:
        packet, ancillary, _, _ = control.recvmsg(1 << 20, socket.CMSG_SPACE(4 * MAX_DESCRIPTORS), socket.MSG_CMSG_CLOEXEC)
        if not packet:
            os._exit(0)
        fds = array.array("i", b"".join(raw for _, kind, raw in ancillary if kind == socket.SCM_RIGHTS)).tolist()
        if os.fork() == 0:
            control.close()
            try:
                _spawn(json.loads(packet), fds, device, confined)
            except BaseException:
                os.dup2(fds[2], 2)
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(_NOT_STARTED)
        for fd in fds:
            os.close(fd)


if __name__ == "__main__":
    main()
