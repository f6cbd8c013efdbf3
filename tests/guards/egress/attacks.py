"""Every way out that the suite tries. A program of its own, of the standard library alone.

    python attacks.py seal|lock|none '{"tcp4": ["127.0.0.1", 4000], ...}'

writes {attack: outcome} as JSON. An outcome is "open" where the attack went through, else what
stopped it: the name of an errno, "killed by 31", or an error's words. Every attack that can deliver
bytes sends its own name, so that the listener outside can tell who came through.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import platform
import pty
import queue
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

X86_64 = platform.machine() == "x86_64"
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
SECONDS = 2.0
NUMBERS: dict[str, int] = {
    "socket": 41 if X86_64 else 198,
    "connect": 42 if X86_64 else 203,
    "write": 1 if X86_64 else 64,
    "ptrace": 101 if X86_64 else 117,
    "process_vm_writev": 311 if X86_64 else 271,
    "setns": 308 if X86_64 else 268,
    "unshare": 272 if X86_64 else 97,
    "bpf": 321 if X86_64 else 280,
    "perf_event_open": 298 if X86_64 else 241,
    "userfaultfd": 323 if X86_64 else 282,
    "request_key": 249 if X86_64 else 218,
    "finit_module": 313 if X86_64 else 273,
    "clone3": 435,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "pidfd_open": 434,
    "pidfd_getfd": 438,
}

Attack = Callable[[dict[str, Any]], None]
ATTACKS: dict[str, Attack] = {}


def attack(function: Attack) -> Attack:
    ATTACKS[function.__name__] = function
    return function


def call(name: str, *arguments: Any) -> int:
    wide = [ctypes.c_ulong(a & 2**64 - 1) if isinstance(a, int) else a for a in arguments]
    return checked(LIBC.syscall(ctypes.c_long(NUMBERS[name]), *wide))


def checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def stream(address: list[Any], name: str, family: int = socket.AF_INET, protocol: int = 0) -> None:
    with socket.socket(family, socket.SOCK_STREAM, protocol) as one:
        one.settimeout(SECONDS)
        one.connect(tuple(address))
        one.sendall(name.encode())


def send_timeout(one: socket.socket) -> None:
    """By the kernel: a socket that Python times does not block, and fast open then is too early."""
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("=qq", int(SECONDS), 0))


def sockaddr(address: list[Any]) -> bytes:
    return (
        struct.pack("=H", 2)
        + struct.pack("!H", address[1])
        + socket.inet_aton(address[0])
        + bytes(8)
    )


# --- from Python -------------------------------------------------------------------------------


@attack
def tcp(to: dict[str, Any]) -> None:
    stream(to["tcp4"], "tcp")


@attack
def tcp_to_the_machines_address(to: dict[str, Any]) -> None:
    stream(to["lan"], "tcp_to_the_machines_address")


@attack
def tcp_over_ipv6(to: dict[str, Any]) -> None:
    stream(to["tcp6"], "tcp_over_ipv6", socket.AF_INET6)


@attack
def tcp_through_mapped_ipv6(to: dict[str, Any]) -> None:
    mapped = ["::ffff:" + to["lan"][0], to["lan"][1]]
    stream(mapped, "tcp_through_mapped_ipv6", socket.AF_INET6)


@attack
def udp(to: dict[str, Any]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.sendto(b"udp", tuple(to["udp4"]))


@attack
def udp_over_ipv6(to: dict[str, Any]) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
        one.sendto(b"udp_over_ipv6", tuple(to["udp6"]))


@attack
def mptcp(to: dict[str, Any]) -> None:
    stream(to["tcp4"], "mptcp", protocol=262)


@attack
def sctp(to: dict[str, Any]) -> None:
    stream(to["tcp4"], "sctp", protocol=132)


@attack
def tcp_fast_open(to: dict[str, Any]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as one:
        send_timeout(one)
        one.sendto(b"tcp_fast_open", socket.MSG_FASTOPEN, tuple(to["tcp4"]))


@attack
def tcp_fast_open_by_sendmsg(to: dict[str, Any]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as one:
        send_timeout(one)
        one.sendmsg([b"tcp_fast_open_by_sendmsg"], [], socket.MSG_FASTOPEN, tuple(to["tcp4"]))


@attack
def tcp_fast_open_by_connect(to: dict[str, Any]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as one:
        one.setsockopt(socket.IPPROTO_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT
        send_timeout(one)
        one.connect(tuple(to["tcp4"]))
        one.sendall(b"tcp_fast_open_by_connect")


@attack
def name_service(to: dict[str, Any]) -> None:
    if to["mode"] == "none":
        raise OSError(errno.ECANCELED, "not tried without a seal: it would ask a real name server")
    socket.getaddrinfo("egress.invalid", 443)


@attack
def raw_ip(to: dict[str, Any]) -> None:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


@attack
def ping_socket(to: dict[str, Any]) -> None:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).close()


@attack
def packet(to: dict[str, Any]) -> None:
    socket.socket(17, socket.SOCK_RAW).close()


@attack
def netlink(to: dict[str, Any]) -> None:
    socket.socket(16, socket.SOCK_RAW).close()


@attack
def vsock(to: dict[str, Any]) -> None:
    socket.socket(40, socket.SOCK_STREAM).close()


@attack
def xdp(to: dict[str, Any]) -> None:
    socket.socket(44, socket.SOCK_RAW).close()


@attack
def crypto_api(to: dict[str, Any]) -> None:
    socket.socket(38, socket.SOCK_SEQPACKET).close()


@attack
def bluetooth(to: dict[str, Any]) -> None:
    socket.socket(31, socket.SOCK_RAW, 1).close()


# --- Unix sockets ------------------------------------------------------------------------------


@attack
def unix_socket_with_a_path(to: dict[str, Any]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.connect(to["path"])
        one.sendall(b"unix_socket_with_a_path")


@attack
def abstract_unix_socket(to: dict[str, Any]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.connect("\0" + to["abstract"])
        one.sendall(b"abstract_unix_socket")


# --- from C and machine code -------------------------------------------------------------------


@attack
def c_library(to: dict[str, Any]) -> None:
    one = checked(LIBC.socket(2, 1, 0))
    try:
        address = sockaddr(to["tcp4"])
        checked(LIBC.connect(one, address, len(address)))
        os.write(one, b"c_library")
    finally:
        os.close(one)


@attack
def raw_system_calls(to: dict[str, Any]) -> None:
    one = call("socket", 2, 1, 0)
    try:
        address = sockaddr(to["tcp4"])
        call("connect", one, address, len(address))
        call("write", one, b"raw_system_calls", 16)
    finally:
        os.close(one)


@attack
def upper_half_of_the_family(to: dict[str, Any]) -> None:
    """The kernel looks at 32 bits of the family; a filter that looked at 64 would be fooled."""
    os.close(call("socket", 0xFFFF_FFFF_0000_0002, 2, 0))


@attack
def i386_entry(to: dict[str, Any]) -> None:
    needs_x86()
    # push rbx; mov eax, edi; mov ebx, esi; xchg ecx, edx; int 0x80; pop rbx; ret
    code = executable(bytes.fromhex("53 89f8 89f3 87d1 cd80 5b c3"))
    kind = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_uint32] * 4)
    enter = kind(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    LIBC.mmap.restype = ctypes.c_ulong
    low = LIBC.mmap(None, ctypes.c_size_t(4096), 3, 0x62, -1, ctypes.c_long(0))  # MAP_32BIT
    address = sockaddr(to["tcp4"])
    ctypes.memmove(low, address + b"i386_entry", len(address) + 10)

    def work() -> None:
        one = _negative(enter(359, 2, 1, 0))
        _negative(enter(362, one, low, len(address)))
        _negative(enter(4, one, low + len(address), 10))

    in_a_child(work)


@attack
def x32_entry(to: dict[str, Any]) -> None:
    needs_x86()
    wide = [ctypes.c_ulong(v) for v in (2, 1, 0)]
    os.close(checked(LIBC.syscall(ctypes.c_long(0x4000_0000 | 41), *wide)))


def needs_x86() -> None:
    if not X86_64:
        raise OSError(errno.ENOSYS, "x86_64 only")


def executable(code: bytes) -> mmap.mmap:
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    return page


def _negative(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def in_a_child(work: Callable[[], None]) -> None:
    """An attack that may be answered with death."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except OSError as error:
            os._exit(min(error.errno or 255, 255))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status < 0:
        raise RuntimeError(f"killed by {-status}")
    if status:
        raise OSError(status, os.strerror(status))


# --- io_uring ----------------------------------------------------------------------------------


class Ring:
    """A ring of eight entries, through which sockets are made without the calls for it."""

    def __init__(self, flags: int = 0) -> None:
        parameters = bytearray(120)
        struct.pack_into("=I", parameters, 8, flags)
        self.descriptor = call("io_uring_setup", 8, (ctypes.c_char * 120).from_buffer(parameters))
        words = struct.unpack_from("=30I", parameters)
        self.sq, self.cq = words[10:20], words[20:30]
        entries, completions = words[0], words[1]
        self.submissions = mmap.mmap(self.descriptor, self.sq[6] + 4 * entries, offset=0)
        self.completions = mmap.mmap(
            self.descriptor, self.cq[5] + 16 * completions, offset=0x800_0000
        )
        self.requests = mmap.mmap(self.descriptor, 64 * entries, offset=0x1000_0000)

    def run(self, operation: int, target: int, address: int, length: int, offset: int) -> int:
        tail = struct.unpack_from("=I", self.submissions, self.sq[1])[0]
        at = tail & struct.unpack_from("=I", self.submissions, self.sq[2])[0]
        request = struct.pack("=BBHiQQI", operation, 0, 0, target, offset, address, length)
        self.requests[64 * at : 64 * at + 64] = request.ljust(64, b"\0")
        struct.pack_into("=I", self.submissions, self.sq[6] + 4 * at, at)
        struct.pack_into("=I", self.submissions, self.sq[1], tail + 1)
        call("io_uring_enter", self.descriptor, 1, 1, 1, None, 0)
        head = struct.unpack_from("=I", self.completions, self.cq[0])[0]
        mask = struct.unpack_from("=I", self.completions, self.cq[2])[0]
        result = struct.unpack_from("=i", self.completions, self.cq[5] + 16 * (head & mask) + 8)[0]
        struct.pack_into("=I", self.completions, self.cq[0], head + 1)
        return _negative(int(result))


@attack
def io_uring(to: dict[str, Any]) -> None:
    ring = Ring()
    address = ctypes.create_string_buffer(sockaddr(to["tcp4"]), 16)
    words = ctypes.create_string_buffer(b"io_uring")
    one = ring.run(45, 2, 0, 0, 1)  # IORING_OP_SOCKET
    ring.run(16, one, ctypes.addressof(address), 0, 16)  # IORING_OP_CONNECT
    ring.run(26, one, ctypes.addressof(words), 8, 0)  # IORING_OP_SEND
    os.close(one)
    os.close(ring.descriptor)


# --- threads and children ----------------------------------------------------------------------


@attack
def new_thread(to: dict[str, Any]) -> None:
    Thread().run(lambda: stream(to["tcp4"], "new_thread"))


@attack
def thread_from_before(to: dict[str, Any]) -> None:
    to["thread"].run(lambda: stream(to["tcp4"], "thread_from_before"))


@attack
def child_process(to: dict[str, Any]) -> None:
    in_a_child(lambda: stream(to["tcp4"], "child_process"))


@attack
def grandchild_process(to: dict[str, Any]) -> None:
    host, port = to["tcp4"]
    program = (
        f"import socket\none = socket.create_connection(({host!r}, {port}), {SECONDS})\n"
        "one.sendall(b'grandchild_process')"
    )
    inner = [sys.executable, "-I", "-c", program]
    outer = f"import subprocess, sys; sys.exit(subprocess.call({inner!r}))"
    done = subprocess.run([sys.executable, "-I", "-c", outer], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])


@attack
def curl(to: dict[str, Any]) -> None:
    host, port = to["tcp4"]
    if shutil.which("curl") is None:
        raise OSError(errno.ENOENT, "no curl")
    url = f"http://{host}:{port}/curl"
    done = subprocess.run(
        ["curl", "-sS", "--http0.9", "-m", "2", url], capture_output=True, text=True
    )
    if "connect" in done.stderr:
        raise RuntimeError(done.stderr.strip())


class Thread:
    """Runs what it is given, and raises here what it raised."""

    def __init__(self) -> None:
        self.work: queue.Queue[Callable[[], None]] = queue.Queue()
        self.ends: queue.Queue[Exception | None] = queue.Queue()
        threading.Thread(target=self._serve, daemon=True).start()

    def run(self, work: Callable[[], None]) -> None:
        self.work.put(work)
        end = self.ends.get(timeout=30)
        if end is not None:
            raise end

    def _serve(self) -> None:
        while True:
            work = self.work.get()
            try:
                work()
                self.ends.put(None)
            except Exception as error:
                self.ends.put(error)


# --- other processes, namespaces, the kernel ---------------------------------------------------


@attack
def ptrace_of_an_outside_process(to: dict[str, Any]) -> None:
    pid = to["pid"]
    call("ptrace", 16, pid, 0, 0)  # PTRACE_ATTACH
    os.waitpid(pid, 0x4000_0000)  # __WALL
    call("ptrace", 17, pid, 0, 0)  # PTRACE_DETACH


@attack
def memory_of_an_outside_process(to: dict[str, Any]) -> None:
    os.close(os.open(f"/proc/{to['pid']}/mem", os.O_RDWR))


@attack
def writing_into_an_outside_process(to: dict[str, Any]) -> None:
    call("process_vm_writev", to["pid"], None, 0, None, 0, 0)


@attack
def socket_of_an_outside_process(to: dict[str, Any]) -> None:
    with descriptor(call("pidfd_open", to["pid"], 0)) as process:
        os.close(call("pidfd_getfd", process, 0, 0))


@attack
def folder_of_an_outside_process(to: dict[str, Any]) -> None:
    os.listdir(f"/proc/{to['pid']}/root/run")


@attack
def network_of_an_outside_process(to: dict[str, Any]) -> None:
    with descriptor(os.open(f"/proc/{to['pid']}/ns/net", os.O_RDONLY)) as namespace:
        call("setns", namespace, 0x4000_0000)


@attack
def network_of_the_launcher(to: dict[str, Any]) -> None:
    with descriptor(os.open(f"/proc/{os.getppid()}/ns/net", os.O_RDONLY)) as namespace:
        call("setns", namespace, 0x4000_0000)


@attack
def setns_by_pidfd(to: dict[str, Any]) -> None:
    with descriptor(call("pidfd_open", to["pid"], 0)) as process:
        call("setns", process, 0x4000_0000)


@attack
def new_user_namespace(to: dict[str, Any]) -> None:
    in_a_child(lambda: call("unshare", 0x1000_0000) and None)


@attack
def new_user_namespace_by_clone3(to: dict[str, Any]) -> None:
    """Not made: without arguments the kernel says EINVAL."""
    call("clone3", None, 0)


@attack
def unmasking(to: dict[str, Any]) -> None:
    if to["mode"] != "seal":
        raise OSError(errno.ECANCELED, "not tried without a seal: it would be the machine's own")
    checked(LIBC.umount2(b"/run", 2))


@attack
def uncovering_a_socket(to: dict[str, Any]) -> None:
    if to["mode"] != "seal":
        raise OSError(errno.ECANCELED, "not tried without a seal: it would be the listener's own")
    with contextlib.suppress(OSError):
        os.unlink(to["path"])
    os.rename(to["path"], to["path"] + ".moved")


@attack
def typing_into_the_terminal(to: dict[str, Any]) -> None:
    ours, theirs = pty.openpty()
    with descriptor(ours), descriptor(theirs):
        fcntl.ioctl(theirs, 0x5412, b"x")


@attack
def key_helper_of_the_kernel(to: dict[str, Any]) -> None:
    call("request_key", b"user", b"batuta:nothing", None, 0)


@attack
def program_in_the_kernel(to: dict[str, Any]) -> None:
    call("bpf", 0xFFFF, None, 0)


@attack
def kernel_module(to: dict[str, Any]) -> None:
    call("finit_module", -1, b"", 0)


@attack
def performance_events(to: dict[str, Any]) -> None:
    call("perf_event_open", None, 0, -1, -1, 0)


@attack
def page_faults_in_user_space(to: dict[str, Any]) -> None:
    os.close(call("userfaultfd", 1))


@attack
def core_dump_program(to: dict[str, Any]) -> None:
    """Opens, and does not write."""
    os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))


@contextlib.contextmanager
def descriptor(one: int) -> Iterator[int]:
    try:
        yield one
    finally:
        os.close(one)


# --- the Go driver -----------------------------------------------------------------------------


class GoDriver:
    """The Snowflake driver: Go's runtime with its threads, through ADBC's C interface (adbc.h)."""

    def __init__(self, path: str) -> None:
        self.library = ctypes.CDLL(path)
        self.error = (ctypes.c_char * 1024)()

    def connect(self, address: list[Any]) -> None:
        options = {
            "username": "u",
            "password": "p",
            "adbc.snowflake.sql.account": "go_driver",
            "adbc.snowflake.sql.uri.host": address[0],
            "adbc.snowflake.sql.uri.port": str(address[1]),
            "adbc.snowflake.sql.uri.protocol": "http",
            "adbc.snowflake.sql.client_option.login_timeout": "1s",
            "adbc.snowflake.sql.client_option.request_timeout": "1s",
        }
        database, connection = (ctypes.c_void_p * 2)(), (ctypes.c_void_p * 2)()
        self._check(self.library.AdbcDatabaseNew(database, self._fresh()))
        for key, value in options.items():
            told = self.library.AdbcDatabaseSetOption(
                database, key.encode(), value.encode(), self._fresh()
            )
            self._check(told)
        self._check(self.library.AdbcDatabaseInit(database, self._fresh()))
        self._check(self.library.AdbcConnectionNew(connection, self._fresh()))
        self._check(self.library.AdbcConnectionInit(connection, database, self._fresh()))

    def _fresh(self) -> Any:
        ctypes.memset(self.error, 0, 1024)
        return self.error

    def _check(self, status: int) -> None:
        if status:
            text = ctypes.cast(ctypes.c_void_p.from_buffer(self.error), ctypes.c_char_p).value
            raise RuntimeError((text or b"?").decode().replace("\n", " ")[-160:])


@attack
def go_driver(to: dict[str, Any]) -> None:
    if to["go"] is None:
        raise OSError(errno.ENOENT, "no adbc-driver-snowflake")
    to["go"].connect(to["tcp4"])


# --- running them ------------------------------------------------------------------------------


def outcome(work: Attack, to: dict[str, Any]) -> str:
    try:
        work(to)
    except socket.gaierror as error:
        return f"no address: {error.strerror}"
    except TimeoutError:
        return "ETIMEDOUT"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except Exception as error:
        return str(error) or type(error).__name__
    return "open"


def main() -> None:
    mode, to = sys.argv[1], json.loads(sys.argv[2])
    to["mode"] = mode
    to["thread"] = Thread()
    to["go"] = GoDriver(to["driver"]) if to.get("driver") else None
    if to["go"] is not None and mode == "lock":
        with contextlib.suppress(RuntimeError):
            to["go"].connect(["127.0.0.1", 1])  # Go's runtime has its threads from here on
    threads = len(os.listdir("/proc/self/task"))
    if mode == "lock":
        from batuta_sql.guards.egress import lock

        lock()
    chosen = to.get("only") or list(ATTACKS)
    found = {name: outcome(ATTACKS[name], to) for name in chosen}
    sys.stdout.write(json.dumps({"outcomes": found, "threads_before": threads}))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    signal.alarm(100)
    main()
