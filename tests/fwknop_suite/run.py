"""fwknop's own test suite against doorward: `python tests/fwknop_suite/run.py SOURCE`, SOURCE being fwknop's sources.

definitions.pl reads the tests of SOURCE/test/tests/*.pl. Each is run here as it is written: its command lines, files,
keys and packets, with `doorward` as fwknop and `doorwardd` as fwknopd, in network, mount and PID namespaces of its own.
A test is alike where it comes to what fwknop's suite demands: an opening for the client or none, a command that ran or
did not, an exit status, a saved section. The words of messages are not compared, and an opening must have an end, which
is not waited for. Prints a row a group and one line for each test that is not alike, or was not run and why. Needs
root, perl, gpg, nft and fwknop's sources; `--client fwknop` knocks with the real client.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve()
REPOSITORY: Final = HERE.parents[2]
CLIENT, SERVER = "FWKNOP-CLIENT", "FWKNOPD-SERVER"  # what stands for the programs in the definitions
ENTRIES: Final = {
    CLIENT: "import sys; sys.argv[0] = 'fwknop'; from doorward.console import main; sys.exit(main())",
    SERVER: "from doorward.daemon import main; import sys; sys.exit(main())",
}
SOURCE_ADDRESS: Final = "127.0.0.2"
KNOCK_PORT: Final = 62201
COMMAND_FILE: Final = Path("/tmp/fwknoptest")  # noqa: S108  the suite's own, in a mount namespace of ours
YES, NO = "1", "0"
REQUIRED, FORBIDDEN = "1", "2"  # of `fw_rule_created`
PRIVATE: Final = "--in-this-namespace"
NAMESPACE: Final = """
ip link set lo up && mount -t tmpfs none /mnt && mkdir /mnt/tmp /mnt/tmp-work /mnt/etc /mnt/etc-work &&
mount -t overlay -o lowerdir=/tmp,upperdir=/mnt/tmp,workdir=/mnt/tmp-work none /tmp && chmod 1777 /tmp &&
mount -t overlay -o lowerdir=/etc,upperdir=/mnt/etc,workdir=/mnt/etc-work none /etc &&
mount -t tmpfs none /var/lib && mount -t tmpfs none /run && mkdir /run/home && export HOME=/run/home && exec "$@"
"""
SECONDS: Final = 8.0  # for a start, a verdict, or an end
NOT_RUN: Final = {
    "build_security": "about the binaries of fwknop",
    "configure_args": "builds fwknop",
    "preliminaries": "about the binaries of fwknop",
    "code_structure": "about the sources of fwknop",
    "cunit_tests": "about libfko",
    "fault_injection": "faults inside fwknop's functions",
    "perl_FKO_module": "about libfko's module",
    "python_fko": "about libfko's module",
    "address_sanitizer": "about fwknop's build",
    "afl_fuzzing": "about fwknop's build",
    "rijndael_hmac_fuzzing": "needs libfko's wrapper",
}
UNHANDLED: Final = {
    "fko_wrapper_exec": "about libfko",
    "cached_pkts_fuzzer": "needs packets that libfko's module makes",
    "binary_exists": "about the binaries of fwknop",
    "specs": "shows the host",
    "gpg_pinentry_check": "about gpg alone",
    "iptables_no_flush_init_exit": "asks for the chains of iptables",
    "iptables_rules_not_duplicated": "asks for the chains of iptables",
    "digest_cache_structure": "about fwknopd's file of digests",
    "down_interface": "pulls the loopback interface down",
    "key_gen_uniqueness": "a hundred runs",
    "user_mismatch": "needs the suite's owner",
    "expected_code_version": "about fwknop's version",
}

ELSEWHERE: Final = {  # what of a test's words or fields asks for something that is not here
    r"ipfw|\bPF\b": "of another system",
    r"IP resolve|IP --resolve|cipherdyne|wget user-agent|-R resolve": "asks a host in the internet",
    r"user_group_mismatch": "needs an owner of the suite who is not root",
    r"insert_\w*rule|iptables_rm_chains|rm_rule_mid_cycle|garbage collect": "puts rules into the chains of iptables",
}

Test = dict[str, Any]


class Server:
    """doorwardd as a test starts fwknopd, and what it has said."""

    def __init__(self, test: Test) -> None:
        """Start it, and wait until it hears knocks or has ended."""
        argv = _argv(test["fwknopd_cmdline"])
        self.lines: list[str] = []
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.runs = _eventually(lambda: self.said("listening for knocks") or self.process.poll() is not None)
        self.runs = self.process.poll() is None

    def _read(self) -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError):
            self.lines.extend(iter(self.process.stdout.readline, ""))

    def said(self, words: str) -> int:
        """Return the number of lines with these words."""
        return sum(words in line for line in self.lines)

    def stop(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(SECONDS)
        self.process.kill()
        self.process.wait()


def _argv(line: str) -> list[str]:
    """The command line of a definition, with our programs in it."""
    words = [word for word in shlex.split(line) if not word.startswith("LD_LIBRARY_PATH=")]
    argv: list[str] = []
    for word in words:
        argv += [sys.executable, "-c", ENTRIES[word]] if word in _ours() else [_real(word)]
    return argv


def _ours() -> frozenset[str]:
    return frozenset({SERVER}) if os.environ.get("REAL_CLIENT") else frozenset(ENTRIES)


def _real(word: str) -> str:
    return "fwknop" if word == CLIENT else word


def _eventually(condition: Any, within: float = SECONDS) -> bool:
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.03)
    return True


def _grants() -> list[str]:
    """The elements of our table that open something, each with its end."""
    listed = subprocess.run(["nft", "-j", "list", "table", "inet", "doorward"], capture_output=True, check=False)
    entries = json.loads(listed.stdout or '{"nftables": []}')["nftables"]
    timed = (one for entry in entries for one in entry.values() if "timeout" in one.get("flags", []))
    return [json.dumps(element) for one in timed for element in one.get("elem", [])]


def _is_open(test: Test) -> bool:
    wanted = "" if test.get("no_ip_check") == YES else SOURCE_ADDRESS
    return any(wanted in one and '"expires"' in one for one in _grants())


def _write_keys(test: Test) -> None:
    for name in ("get_key", "get_hmac_key"):
        chosen = test.get(name) or {"key": "fwknoptest", "file": "local_spa.key"}
        hosts = ("127.0.0.1", "localhost", "some.host.through.proxy.com")
        Path(chosen["file"]).write_text("".join(f"{host}: {chosen['key']}\n" for host in hosts))


def _client(test: Test) -> subprocess.CompletedProcess[str]:
    """Run the client of a test; every one of `multi_cmds` must do well."""
    _write_keys(test)
    lines = test.get("multi_cmds") or [test["cmdline"]]
    typed = f"{test['client_popen']}\n" if test.get("client_popen") else None
    for line in lines:
        given: dict[str, Any] = {"input": typed} if typed else {"stdin": subprocess.DEVNULL}
        done = _ran(line, **given)
        if done.returncode:
            break
    return done


def _ran(line: str, **how: Any) -> subprocess.CompletedProcess[str]:
    if re.search(r"[|&]|^\w+=\w+ |^env ", line):
        line = line.replace(CLIENT, shlex.join(_argv(CLIENT))).replace(SERVER, shlex.join(_argv(SERVER)))
        return subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=15, check=False, **how)
    return subprocess.run(_argv(line), capture_output=True, text=True, timeout=15, check=False, **how)


def _send(packet: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(packet.encode("latin-1"), ("127.0.0.1", KNOCK_PORT))


def _packet(text: str) -> str:
    """The packet that a client says it has made."""
    found = re.findall(r"Final SPA Data: *(\S+)", text)
    return max(found, key=len, default="")  # the real client's later dump lacks the HMAC


def cycle(test: Test) -> str:
    """Server, client, and whether something opened."""
    server = Server(test)
    try:
        if not server.runs:
            return "" if test.get("server_exec_err") == YES else f"the server ends: {_last(server)}"
        if test.get("server_exec_err") == YES:
            return "the server starts"
        return _knocked(test, server)
    finally:
        server.stop()


def _knocked(test: Test, server: Server) -> str:
    for number in range(1, max(1, int(test.get("client_cycles_per_server_instance") or 1)) + 1):
        done = _client(test)
        if done.returncode and test.get("ignore_client_error") != YES:
            return f"the client ends with {done.returncode}: {(done.stdout + done.stderr).strip()[-160:]}"
        _eventually(lambda: server.said("verdict=") >= number, 3)  # noqa: B023  used at once
    return _opened(test, server)


def _opened(test: Test, server: Server) -> str:
    demand = test.get("fw_rule_created")
    opened = _eventually(lambda: _is_open(test), 1.0 if demand == REQUIRED else 0.1)
    if demand == REQUIRED and not opened:
        return f"nothing opens: {_last(server)}"
    if demand == FORBIDDEN and opened:
        return f"something opens: {_last(server)}"
    return ""


def _last(server: Server) -> str:
    verdicts = [line for line in server.lines if "verdict=" in line] or server.lines[-1:]
    return verdicts[-1].strip()[-220:] if verdicts else "silent"


def command(test: Test) -> str:
    """A cycle whose packet runs a command."""
    COMMAND_FILE.unlink(missing_ok=True)
    said = cycle(test)
    ran = _eventually(COMMAND_FILE.exists, 1.0)
    if ran is (test.get("cmd_exec_file_not_created") == YES):
        return f"the command {'runs' if ran else 'does not run'}; {said}"
    owner = test.get("cmd_exec_file_owner")
    if ran and owner and COMMAND_FILE.owner() != owner.replace("USER", "root"):
        return f"the command runs as {COMMAND_FILE.owner()}"
    return ""


def command_cycle(test: Test) -> str:
    """A cycle whose packet runs a stanza's opening and closing commands."""
    opens = [Path(one) for one in test.get("cmd_cycle_open_file") or []]
    closes = test.get("cmd_cycle_close_file") or []
    closes = [Path(one) for one in (closes if isinstance(closes, list) else [closes]) if one != "NONE"]
    for file in opens + closes:
        file.unlink(missing_ok=True)
    server = Server(test)
    try:
        said = _knocked(test, server) if server.runs else f"the server ends: {_last(server)}"
        missing = [one for one in opens + closes if not _eventually(one.exists, 15)]
        return f"no {missing[0]}; {_last(server)}" if missing else said
    finally:
        server.stop()


def packet(test: Test) -> str:
    """A packet of the suite's own, for which something must open, or nothing (`fuzzing_pkt`)."""
    server = Server(test)
    try:
        if not server.runs:
            return f"the server ends: {_last(server)}"
        _send(test.get("pkt") or test["fuzzing_pkt"])
        _eventually(lambda: server.said("verdict="), 1.5)
        bad = bool(test.get("fuzzing_pkt"))
        default = FORBIDDEN if bad else REQUIRED
        return _opened({**test, "fw_rule_created": test.get("fw_rule_created") or default}, server)
    finally:
        server.stop()


def replay(test: Test) -> str:
    """A packet that opened something is sent again, by itself or behind a prefix."""
    server = Server(test)
    try:
        if not server.runs:
            return f"the server ends: {_last(server)}"
        made = _packet(_client(test).stdout)
        served = "gpg" in test["fwknopd_cmdline"] or "gpg" not in test["cmdline"]  # else the suite knows that it is not
        if served and (not _eventually(lambda: server.said("verdict=granted")) or not made):
            return f"nothing opens: {_last(server)}"
        before = len([line for line in server.lines if "verdict=" in line])
        _send(test.get("pkt_prefix", "") + made)
        _eventually(lambda: server.said("verdict=") > before, 2)
        return "" if server.said("verdict=granted") == served else "a replay is granted"
    finally:
        server.stop()


ALTERED: Final = {
    "altered_base64_spa_data": lambda made: "AAAA" + made[4:],
    "altered_non_base64_spa_data": lambda made: "????" + made[4:],
    "altered_hmac_spa_data": lambda made: made[:-10] + "AAAA" + made[-6:],
    "altered_pkt_hmac_spa_data": lambda made: "AAAA" + made[4:],
    "appended_spa_data": lambda made: made + "AAAA",
    "prepended_spa_data": lambda made: "AAAA" + made,
}


def altered(test: Test) -> str:
    """A packet that the client made and did not send is changed; then it is sent as it was."""
    server = Server(test)
    try:
        made = _packet(_client({**test, "cmdline": f"{test['cmdline']} --test"}).stdout)
        if not server.runs or not made:
            return f"no packet, or no server: {_last(server)}"
        _send(ALTERED[test["function"]](made))
        time.sleep(0.3)
        if _is_open(test):
            return "a changed packet opens something"
        _send(made)
        return "" if _eventually(lambda: _is_open(test), 2) else f"the packet itself opens nothing: {_last(server)}"
    finally:
        server.stop()


def program(test: Test) -> str:
    """A program that runs to its end: its exit status, and what it wrote into the client's file."""
    _write_files(test)
    line = test.get("cmdline") or test["fwknopd_cmdline"]
    try:
        done = _client({**test, "cmdline": line, "multi_cmds": None})
    except subprocess.TimeoutExpired:
        return "does not end"
    demanded = test.get("exec_err")
    if test["function"] in {"client_rc_file", "server_conf_files"}:
        demanded = YES if demanded == YES else NO
    if SERVER in line and " -D" in line and demanded == YES:
        demanded = None  # the suite takes either, and reads what was dumped
    shown = (done.stdout + done.stderr).strip().replace("\n", " | ")[-160:]
    if demanded in {YES, NO} and (done.returncode != 0) is not (demanded == YES):
        return f"exit {done.returncode}: {shown}"
    file = Path("run/save_fwknoprc")
    text = file.read_text() if file.exists() else ""
    wanted = [one for one in test.get("rc_positive_output_matches") or [] if not _matches(one, text)]
    unwanted = [one for one in test.get("rc_negative_output_matches") or [] if _matches(one, text)]
    return f"the saved file: {[*wanted, *unwanted]} in {text!r}" if wanted or unwanted else ""


def _matches(pattern: str, text: str) -> bool:
    python = re.sub(r"\(\?\^([a-z]*):", lambda found: f"(?{found[1]}:", pattern)
    return any(re.search(python, line) for line in text.splitlines())


def _write_files(test: Test) -> None:
    files = {
        "server_access_file": "run/rewrite_access.conf",
        "server_conf_file": "run/rewrite_fwknopd.conf",
        "server_include_keys_access_file": "run/rewrite_include_keys_access.conf",
        "digest_cache_file": "run/rewrite_digest.cache",
    }
    for name, place in files.items():
        if test.get(name):
            _private(place, "".join(f"{line}\n" for line in test[name]))
    for name, place in (("write_rc_file", "run/rewrite_fwknoprc"), ("save_rc_stanza", "run/save_fwknoprc")):
        if test.get(name):
            _private(place, "".join(map(_section, test[name])))


def _section(one: dict[str, Any]) -> str:
    return f"[{one['name']}]\n" + "".join(f"{name}      {value}\n" for name, value in one["vars"].items())


def _private(place: str, text: str) -> None:
    Path(place).write_text(text)
    Path(place).chmod(0o600)


KINDS: Final[dict[str, Any]] = {
    **dict.fromkeys(["spa_cycle", "permissions_check", "tcp_spa_cycle", "client_send_spa_packet"], cycle),
    **dict.fromkeys(["rotate_digest_file", "iptables_rules_not_duplicated_account_for_timestamps"], cycle),
    "spa_cmd_exec_cycle": command,
    "spa_cmd_open_close_exec_cycle": command_cycle,
    **dict.fromkeys(["backwards_compatibility", "os_compatibility", "predef_pkts_spa_cycle", "fuzzer"], packet),
    "process_pcap_file_directly": cycle,
    "replay_detection": replay,
    **dict.fromkeys(ALTERED, altered),
    **dict.fromkeys(["generic_exec", "client_rc_file", "server_conf_files", "rm_last_args", "run_last_args"], program),
}


def judge(test: Test) -> tuple[str, str]:
    """`alike`, `differs` or `not run`, and the reason of the latter two."""
    if test["group"] in NOT_RUN:
        return "not run", NOT_RUN[test["group"]]
    for pattern, why in ELSEWHERE.items():
        if re.search(pattern, f"{test['detail']} {test.get('cmdline', '')} {' '.join(test)}"):
            return "not run", why
    kind = KINDS.get(test["function"])
    if kind is None or test.get("sudo_test") == YES:
        return "not run", UNHANDLED.get(test["function"], "steps that only the suite's driver has")
    if kind is cycle and not (test.get("fwknopd_cmdline") and (test.get("cmdline") or test.get("multi_cmds"))):
        kind = program if test.get("cmdline") else None
    if kind is None:
        return "not run", "steps that only the suite's driver has"
    subprocess.run(["nft", "flush", "ruleset"], check=False, capture_output=True)
    _use_store()
    try:
        said = kind(test)
    except (OSError, KeyError, ValueError, subprocess.TimeoutExpired) as error:
        said = f"{type(error).__name__}: {error}"
    finally:
        _end_what_is_left()
    return ("differs", said) if said else ("alike", "")


def _end_what_is_left() -> None:
    """End each process of this PID namespace but this one: a daemon that a test has detached."""
    for process in Path("/proc").glob("[0-9]*"):
        if process.name != str(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process.name), signal.SIGKILL)


def _use_store() -> None:
    """Begin with a replay store that has run for long: the suite's recorded packets are years old."""
    from doorward.replay import ReplayStore  # noqa: PLC0415  after the path is set

    for left in Path("run").glob("*.cache*"):
        left.unlink()
    ReplayStore(Path("run/digest.cache")).close()


def prepare(source: Path, folder: Path) -> None:
    """A copy of the suite's files, as its driver leaves them before the first test."""
    shutil.copytree(source / "test", folder / "test", symlinks=True)
    (folder / "lib/.libs").mkdir(parents=True)
    test = folder / "test"
    for name in ("run", "output"):
        (test / name).mkdir(exist_ok=True)
    for archive in (test / "conf").glob("*.tar.gz"):
        shutil.unpack_archive(archive, test / "conf")
    for file in (test / "conf").rglob("*access*.conf"):  # a daemon has no working directory of its own
        text = re.sub(r"^(GPG_HOME_DIR|%\w+)(\s+)(conf/)", rf"\1\2{test}/\3", file.read_text(), flags=re.MULTILINE)
        file.write_text(text)
    for place in test.rglob("*"):
        os.chown(place, 0, 0)
        place.chmod(0o700 if place.is_dir() or os.access(place, os.X_OK) else 0o600)


def work(source: Path, number: int, jobs: int, include: str, out: Path) -> None:
    """Judge every jobs-th test in this namespace; a line of JSON each."""
    folder = Path(tempfile.mkdtemp(prefix="doorward-suite-", dir="/tmp"))
    folder.chmod(0o755)
    prepare(source, folder)
    os.chdir(folder / "test")
    os.environ["PYTHONPATH"] = str(REPOSITORY / "daemon")
    sys.path.insert(0, os.environ["PYTHONPATH"])
    with out.open("w") as results:
        for test in definitions(source, include)[number::jobs]:
            verdict, why = judge(test)
            name = f"[{test['category']}] [{test.get('subcategory', '')}] {test['detail']}"
            line = {"group": test["group"], "name": name, "verdict": verdict, "why": why, "function": test["function"]}
            results.write(json.dumps(line) + "\n")
            results.flush()


def definitions(source: Path, include: str) -> list[Test]:
    """The suite's tests whose name matches."""
    arguments = [str(HERE.with_name("definitions.pl")), str(source / "test"), CLIENT, SERVER]
    read = subprocess.run(["perl", *arguments], capture_output=True, text=True, check=True)
    tests = [json.loads(line) for line in read.stdout.splitlines()]
    return [one for one in tests if re.search(include, f"{one['group']} {one['category']} {one['detail']}")]


def report(results: list[dict[str, str]]) -> str:
    """A row a group, then what is not alike and what was not run."""
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    for one in results:
        groups[one["group"]][one["verdict"]] += 1
    rows = [f"{'group':34}{'tests':>6}{'run':>6}{'alike':>6}"]
    for name, found in sorted(groups.items()):
        run = found["alike"] + found["differs"]
        rows.append(f"{name:34}{found.total():6}{run:6}{found['alike']:6}")
    differ = [f"differs  {one['name']}: {one['why']}" for one in results if one["verdict"] == "differs"]
    reasons = Counter((one["group"], one["why"]) for one in results if one["verdict"] == "not run")
    left = [f"not run  {group}: {count}, {why}" for (group, why), count in sorted(reasons.items())]
    total = Counter(one["verdict"] for one in results)
    return "\n".join([*differ, *left, *rows, f"{len(results)} tests, {dict(total)}"])


def main() -> int:
    """Run the suite in `--jobs` namespaces and print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the folder of fwknop's sources")
    parser.add_argument("--jobs", type=int, default=4, help="namespaces at a time; tests mostly wait (default: 4)")
    parser.add_argument("--include", default="", metavar="RE", help="only tests whose group, category and name match")
    parser.add_argument("--client", choices=["doorward", "fwknop"], default="doorward", help="who knocks")
    parser.add_argument(PRIVATE, nargs=2, metavar=("NUMBER", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client == "fwknop":
        os.environ["REAL_CLIENT"] = "1"
    if options.in_this_namespace:
        number, out = options.in_this_namespace
        work(options.source, int(number), options.jobs, options.include, Path(out))
        return 0
    results = _apart(options)
    sys.stdout.write(report(results) + "\n")
    return 0


def _apart(options: argparse.Namespace) -> list[dict[str, str]]:
    with tempfile.TemporaryDirectory(prefix="doorward-suite-", dir="/var/tmp") as kept:
        started = []
        for number in range(options.jobs):
            out = Path(kept) / f"{number}.jsonl"
            again = [sys.executable, str(HERE), *sys.argv[1:], PRIVATE, str(number), str(out)]
            enter = ["unshare", "-n", "-m", "-p", "-f", "--kill-child", "--mount-proc", "sh", "-c", NAMESPACE, "sh"]
            started.append((subprocess.Popen([*enter, *again]), out))
        results: list[dict[str, str]] = []
        for process, out in started:
            if process.wait():
                sys.exit("a namespace failed, see above")
            results += [json.loads(line) for line in out.read_text().splitlines()]
        return results


if __name__ == "__main__":
    sys.exit(main())
