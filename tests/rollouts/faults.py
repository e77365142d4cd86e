"""Failures of a roll-out to a hidden host: wrong variables, and what strikes the host or the controller under way.

A fault's own variables and options are those of the run that it is injected into; where a strike needs a change to
meet, they bring a harmless one. A turn is a fault for the Debian 12 and one for the Debian 13, whose deadlines pass
together.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER: Final = "@FOLDER@"
"""In variables it stands for a folder of the run's own, which has a copy of the controller's key."""


class Moment(enum.Enum):
    """When a fault strikes."""

    BEFORE = "before the task that is named"
    ARMED = "within it, once the host's old files would come back by themselves"
    SWAPPED = "within it, once the new files are in force and nobody has proven them"
    CLOSED = "within it, once the new table is in force and nobody has proven it"


class Blow(enum.Enum):
    """What does not strike from within the host."""

    KILL = "the controller's processes are gone at once"
    INTERRUPT = "Ctrl-C"
    TERMINATE = "SIGTERM"
    CUT = "nothing of the controller's comes to the host any more"
    MUTE = "none of the controller's knocks does"
    MOVE = "the controller has another address towards the host"
    LOSE_KEY = "the controller's key is gone"
    ANOTHER = "another controller rolls out to the host"
    REBOOT = "the host is booted"
    POWER = "the host's power fails, and comes back"


@dataclass(frozen=True, slots=True)
class Fault:
    """One failure, where it strikes, and what it leaves by itself.

    ``undo`` is a script that takes away what was injected. With ``bars`` that comes before the host is looked at: by
    itself what is injected keeps everybody out, or the host from putting anything back, with doorward or without.
    ``leaves`` are paths that differ afterwards because of what was injected, or what was proven and kept before it.
    """

    name: str
    stage: str
    variables: Mapping[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    task: str = ""
    moment: Moment = Moment.BEFORE
    strike: str | Blow = ""
    undo: str = ""
    bars: bool = False
    ends_well: bool = False
    again: bool = False
    """Whether a second run begins at once, while the host has not put anything back yet."""
    other_archive: bool = False
    leaves: tuple[str, ...] = ()


# --- tasks ------------------------------------------------------------------------------------------------------------

RECOGNISE: Final = "Read the mark of an enrolled host"
PREFLIGHT: Final = "Check the inventory, and whether doorward can run on the host"
STAGE: Final = "Begin a change of the host's files"
KEYS: Final = "Make the keys of the host's clients"
APPLY: Final = "Start the daemon with these files, prove that this controller still gets in, and keep them"
CLOSE: Final = "Close the host, prove that it can be entered, and keep the table"
LAST: Final = "Keep in mind that the host was closed, should its file be lost"
ENROLLED: Final = "Mark the host as enrolled"

# --- runs -------------------------------------------------------------------------------------------------------------

ACCESS: Final = ("--tags", "doorward_access")
INSTALL: Final = ("--tags", "doorward_install")
FIREWALL: Final = ("--tags", "doorward_firewall")

# Harmless: access.conf alone, which the daemon reads again; its settings, for which it is started again; programs and
# units; the table.
RELOADED: Final = {"doorward_window": 7}
RESTARTED: Final = {"doorward_max_age": 119}
PROGRAMS: Final = {"doorward_python": "/usr/bin/python3.13"}
TABLE: Final = {"doorward_fallback_sources": ["203.0.113.9"], "doorward_failure_policy": "closed"}

# What would shut the controller out for good.
KEY: Final = "doorward1 AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="
STRANGERS: Final = {"doorward_clients": [{"name": "stranger", "public_key": f"{KEY} stranger"}]}
SHUT: Final = {"doorward_firewall_rules": ["tcp dport { 22, 2222 } drop"]}
CONTROLLER: Final = {"name": "controller"}
NEIGHBOUR: Final = {"name": "neighbour", "format": "fwknop"}


def _clients(*clients: Mapping[str, Any]) -> dict[str, Any]:
    return {"doorward_clients": list(clients)}


def _away(*paths: str) -> tuple[str, str]:
    """The scripts that move something away and back."""
    moved = [f"mv {path} {path}.away" for path in paths]
    return "\n".join(moved), "\n".join(f"mv {path}.away {path}" for path in paths)


def _full(folder: str, more: str) -> str:
    """The script that puts a small file system in place of a folder, with its files and room for no more."""
    return f"""
cp -a {folder} /tmp/strike
size=$(expr 64 + "$(du -sk {folder} | cut -f 1)")
mount -t tmpfs -o "size=${{size}}k" none {folder}
cp -a /tmp/strike/. {folder}
rm -rf /tmp/strike
{more}
cat /dev/zero >{folder}/fill 2>/dev/null || :
"""


# --- scripts of root's on the host ------------------------------------------------------------------------------------

_UNIT: Final = "/etc/systemd/system/doorwardd.service"
_CHANGE: Final = "/etc/doorward/change"
_RUN_IS_FULL: Final = """
df --output=size -k /run | tail -n 1 | tr -d ' ' >/tmp/size
used=$(df --output=used -k /run | tail -n 1 | tr -d ' ')
mount -o "remount,size=${used}k" /run
cat /dev/zero >/run/fill 2>/dev/null || :
"""
_RUN_HAS_ROOM: Final = "read -r size </tmp/size && mount -o remount,size=${size}k /run && rm -f /run/fill"
_ETC_IS_READ_ONLY: Final = "mount --bind /etc /etc && mount -o remount,bind,ro /etc"
_ETC_IS_WRITTEN: Final = "umount -l /etc"
_NO_USER: Final = """
cp -a /etc/passwd /etc/passwd.away
sed -i '/^doorward:/d' /etc/passwd
"""
# A daemon that waits for a minute before it lets go of the lock.
_LOCKED: Final = f"systemd-run --quiet --collect flock {_CHANGE}/lock sleep 45"
# "[a]", so that the script does not find itself.
_APPLY_IS_KILLED: Final = """
for process in /proc/[0-9]*; do
    ! tr '\\0' ' ' <$process/cmdline 2>/dev/null | grep -q 'doorward.pyz change [a]pply' || kill -KILL ${process#/proc/}
done
"""
_UNTIL_PENDING: Final = f"until [ -e {_CHANGE}/pending ]"
_NO_SYSTEMCTL_FOR_A_MOMENT: Final = f"""
mv /usr/bin/systemctl /usr/bin/systemctl.away
systemd-run --quiet --collect sh -c '{_UNTIL_PENDING}; do sleep 0.01; done
    mv /usr/bin/systemctl.away /usr/bin/systemctl'
"""
_KILLED_OVER_AND_OVER: Final = f"""
systemd-run --quiet --collect --property=RuntimeMaxSec=30 sh -c '{_UNTIL_PENDING}
    do systemctl kill --signal=KILL doorwardd; sleep 0.3; done'
"""
_RELOADS: Final = "for number in $(seq 40); do systemctl daemon-reload; sleep 1; done"
_SSHD_ELSEWHERE: Final = "echo Port 2022 >/etc/ssh/sshd_config.d/strike.conf && systemctl restart ssh"
_SSHD_BACK: Final = "rm -f /etc/ssh/sshd_config.d/strike.conf && systemctl restart ssh"
_OTHER_KEYS: Final = "mkdir /etc/ssh/away && mv /etc/ssh/ssh_host_* /etc/ssh/away && ssh-keygen -A"
_OLD_KEYS: Final = "rm -f /etc/ssh/ssh_host_* && mv /etc/ssh/away/* /etc/ssh && rmdir /etc/ssh/away"
_ANOTHER_WALL: Final = """
nft add table inet other
nft add chain inet other input '{ type filter hook input priority 0; policy drop; }'
"""
_NO_OTHER_WALL: Final = "nft delete table inet other"

# --- wrong variables, which the preflight refuses ---------------------------------------------------------------------


def _refused(name: str, variables: Mapping[str, Any]) -> Fault:
    return Fault(name, "preflight", variables, ACCESS)


_REFUSED: Final = (
    (
        _refused("the clients are a word", {"doorward_clients": "controller"}),
        _refused("a client is there twice", _clients(CONTROLLER, CONTROLLER)),
    ),
    (
        _refused(
            "two clients have one public key",
            _clients(CONTROLLER, *({"name": name, "public_key": f"{KEY} x"} for name in ("ann", "bob"))),
        ),
        _refused("a client's public key is malformed", _clients(CONTROLLER, {"name": "ann", "public_key": KEY[:-3]})),
    ),
    (
        _refused("the controller's last day is none", _clients(CONTROLLER | {"expires": "31/31/2030"})),
        _refused("the services are without sshd's port", {"doorward_services": ["tcp/4444"]}),
    ),
    (
        _refused("the controller's own services are without ssh", _clients(CONTROLLER | {"services": ["tcp/4444"]})),
        _refused("the sources are a word", {"doorward_sources": "198.51.100.0/24"}),
    ),
    (
        _refused("a public service is tpc/443", {"doorward_public_services": ["tpc/443"]}),
        _refused("the interface is one that the host has not", {"doorward_interfaces": ["eth9"]}),
    ),
    (
        _refused("the firewall is only to observe, on a hidden host", {"doorward_firewall_mode": "observe"}),
        _refused("the failure policy is fallback, to nobody", {"doorward_failure_policy": "fallback"}),
    ),
    (
        _refused("a fallback source is a quarter of all addresses", {"doorward_fallback_sources": ["64.0.0.0/2"]}),
        _refused("the fallback sources are misspelt", {"doorward_fallback_source": ["198.51.100.1"]}),
    ),
    (
        _refused("the Python is not there", {"doorward_python": "/usr/bin/python9"}),
        _refused("the port is 70000", {"doorward_port": 70000}),
    ),
    (
        _refused("the options are a word", {"doorward_options": "MAX_SPA_PACKET_AGE=60"}),
        _refused("tasks do not become root", {"ansible_become": False}),
    ),
)

# --- a controller that cannot even begin ------------------------------------------------------------------------------

_NOT_BEGUN: Final = (
    (
        Fault(
            "the controller knocks with another host's key",
            "connection",
            {"ansible_spa_key": f"HOST_KEY: {KEY}\nCLIENT_KEY_FILE: {{{{ doorward_private_key_file }}}}\n"},
            ACCESS,
        ),
        Fault("the controller's sudo password is wrong", "connection", {"ansible_become_password": "wrong"}, ACCESS),
    ),
    (
        Fault("the controller does not knock", "connection", {"ansible_connection": "ansible.builtin.ssh"}, ACCESS),
        Fault(
            "the controller's key pair is lost",
            "connection",
            {"doorward_private_key_file": f"{FOLDER}/lost.key"},
            ACCESS,
        ),
    ),
    (
        Fault("the controller logs in as nobody", "connection", {"ansible_user": "nobody"}, ACCESS),
        Fault("the controller dials another port", "connection", {"ansible_port": 2022}, ACCESS),
    ),
    (
        Fault("the run starts at the task that swaps the files", "options", RELOADED, ("--start-at-task", APPLY)),
        Fault("the run starts at the task that closes the host", "options", TABLE, ("--start-at-task", CLOSE)),
    ),
    (
        Fault(
            "the vault's secret for a new key is missing",
            "keys",
            {
                "doorward_vault_id": "nobody",
                **_clients(CONTROLLER, NEIGHBOUR, {"name": "newcomer", "format": "fwknop"}),
            },
            ACCESS,
        ),
        Fault("the controller has another name", "keys", {"doorward_controller": "laptop"}, ACCESS),
    ),
)

# --- wrong variables, which only the proof can show -------------------------------------------------------------------


def _not_proven(name: str, variables: Mapping[str, Any], options: tuple[str, ...] = ACCESS) -> Fault:
    return Fault(name, "proof", variables, options)


_NOT_PROVEN: Final = (
    (
        _not_proven("the clients are without the controller", STRANGERS),
        _not_proven("the sources are elsewhere", {"doorward_sources": ["203.0.113.0/24"]}),
    ),
    (
        _not_proven("the controller's last day is past", _clients(CONTROLLER | {"expires": "01/01/2020"})),
        _not_proven(
            "the controller's own sources are elsewhere", _clients(CONTROLLER | {"sources": ["203.0.113.0/24"]})
        ),
    ),
    (
        _not_proven("the host hears knocks on lo alone", {"doorward_interfaces": ["lo"]}, INSTALL),
        _not_proven(
            "the host hears another port than the one that is knocked at",
            {"doorward_port": 62299, "ansible_spa_port": 62201},
            INSTALL,
        ),
    ),
    (
        _not_proven("the controller's public key is another's", _clients(CONTROLLER | {"public_key": f"{KEY} x"})),
        _not_proven("the clients are the neighbour alone", _clients(NEIGHBOUR)),
    ),
    (
        _not_proven(
            "the UDP server is at another port",
            {"doorward_options": {"ENABLE_UDP_SERVER": "Y", "UDPSERV_PORT": 62299}},
            INSTALL,
        ),
        Fault("a setting is no number", "swap", {"doorward_options": {"MAX_SPA_PACKET_AGE": "banana"}}, INSTALL),
    ),
    (
        _not_proven("the deadline of the files is too short", RELOADED | {"doorward_change_deadline": 6}),
        Fault("the deadline of the table is too short", "table", TABLE | {"doorward_firewall_deadline": 6}, FIREWALL),
    ),
    (
        Fault("a rule of the table drops ssh", "table", SHUT, FIREWALL),
        Fault("a rule of the table is none", "table", {"doorward_firewall_rules": ["let everybody in"]}, FIREWALL),
    ),
)

# --- what strikes before the files are swapped ------------------------------------------------------------------------


def _staged(  # noqa: PLR0913  the columns of the table
    name: str,
    strike: str | Blow,
    undo: str = "",
    variables: Mapping[str, Any] = RELOADED,
    *,
    task: str = APPLY,
    bars: bool = False,
    ends_well: bool = False,
    leaves: tuple[str, ...] = (),
) -> Fault:
    """A fault that strikes before the swap, in a run of those parts that make the change."""
    options = INSTALL if variables == RESTARTED else ACCESS
    return Fault(
        name,
        "staged" if task == APPLY else "staging",
        variables,
        options,
        task,
        strike=strike,
        undo=undo,
        bars=bars,
        ends_well=ends_well,
        leaves=leaves,
    )


_STAGED: Final = (
    (
        _staged("/run is full", _RUN_IS_FULL, _RUN_HAS_ROOM, task=STAGE),
        _staged("/run is full", _RUN_IS_FULL, _RUN_HAS_ROOM),
    ),
    (
        _staged("/etc is read-only", _ETC_IS_READ_ONLY, _ETC_IS_WRITTEN),
        _staged(
            "/etc/doorward is full",
            _full("/etc/doorward", ""),
            "umount -l /etc/doorward",
            leaves=("/etc/doorward/fill",),
        ),
    ),
    (
        _staged("nft(8) is missing", *_away("/usr/sbin/nft"), RESTARTED, ends_well=True),
        _staged("flock(1) is missing, and the controller left out", *_away("/usr/bin/flock"), STRANGERS),
    ),
    (
        _staged("systemd-run(1) is missing", *_away("/usr/bin/systemd-run")),
        _staged("systemctl(1) is missing", *_away("/usr/bin/systemctl")),
    ),
    (
        _staged("Python is missing", *_away("/usr/bin/python3")),
        _staged(
            "the archive is damaged", "for file in /run/doorward-change.*/new/usr/lib/*/*.pyz; do echo >$file; done"
        ),
    ),
    (
        _staged("the staged files are gone", "rm -rf /run/doorward-change.*"),
        _staged(
            "somebody edits access.conf",
            "echo '# edited' >>/etc/doorward/access.conf",
            leaves=("/etc/doorward/access.conf",),
        ),
    ),
    (
        _staged(
            "the daemon's unit is missing",
            *_away(_UNIT),
            RESTARTED,
            bars=True,
            leaves=("/etc/systemd/system/multi-user.target.wants/doorwardd.service",),
        ),
        _staged("the daemon's user is missing", _NO_USER, "mv /etc/passwd.away /etc/passwd", RESTARTED, bars=True),
    ),
    (
        _staged(
            "the daemon has no room but what its log has beforehand",
            _full("/var/lib/doorward", "chown doorward: /var/lib/doorward && chmod 0700 /var/lib/doorward"),
            "umount -l /var/lib/doorward && systemctl restart doorwardd",
            RESTARTED,
            ends_well=True,
        ),
        _staged("the lock is held for longer than the deadline", _LOCKED),
    ),
    (
        _staged("the daemon is killed", "systemctl kill --signal=KILL doorwardd", ends_well=True),
        _staged("the daemon is stopped", "systemctl stop doorwardd", variables={}, task=STAGE, ends_well=True),
    ),
    (
        _staged(
            "systemctl(1) is missing for a moment, and the controller left out",
            _NO_SYSTEMCTL_FOR_A_MOMENT,
            "[ -e /usr/bin/systemctl ] || mv /usr/bin/systemctl.away /usr/bin/systemctl",
            variables=STRANGERS,
        ),
        _staged(
            "the daemon is killed over and over, and the controller left out",
            _KILLED_OVER_AND_OVER,
            variables=STRANGERS,
        ),
    ),
    (
        Fault(
            "the daemon's unit is missing",
            "preflight",
            task=PREFLIGHT,
            strike=f"rm {_UNIT} && systemctl daemon-reload",
            ends_well=True,
        ),
        Fault("the daemon's user is missing", "preflight", task=PREFLIGHT, strike=_NO_USER, ends_well=True),
    ),
    (
        _staged(
            "the host's key is lost",
            *_away("/etc/doorward/host.key"),
            {},
            task=STAGE,
            bars=True,
        ),
        _staged(
            "the mark of the enrolled host is lost",
            *_away("/etc/doorward/enrolment"),
            task=RECOGNISE,
            leaves=("/etc/doorward/enrolment", "/etc/doorward/enrolment.away"),
        ),
    ),
    (
        _staged("the host is booted", Blow.REBOOT),
        _staged("the controller is killed", Blow.KILL),
    ),
    (
        _staged(
            "the controller's key is lost",
            Blow.LOSE_KEY,
            variables=RELOADED | {"doorward_private_key_file": f"{FOLDER}/client.key"},
        ),
        _staged(
            "another controller was faster",
            Blow.ANOTHER,
            leaves=("/etc/doorward/access.conf", "/etc/doorward/access.redacted"),
        ),
    ),
)

# --- what strikes between the swap and its proof ----------------------------------------------------------------------


def _swapped(  # noqa: PLR0913  the columns of the table
    name: str,
    strike: str | Blow,
    undo: str = "",
    variables: Mapping[str, Any] = RELOADED,
    *,
    moment: Moment = Moment.SWAPPED,
    bars: bool = False,
    ends_well: bool = False,
    again: bool = False,
    other_archive: bool = False,
) -> Fault:
    """A fault that strikes within the task that swaps the files."""
    access = variables in (RELOADED, STRANGERS) and not other_archive
    return Fault(
        name,
        "swapped",
        {} if other_archive else variables,
        ACCESS if access else INSTALL,
        APPLY,
        moment,
        strike,
        undo=undo,
        bars=bars,
        ends_well=ends_well,
        again=again,
        other_archive=other_archive,
    )


_SWAPPED: Final = (
    (
        _swapped("the controller is killed", Blow.KILL, variables=STRANGERS),
        _swapped("the controller is interrupted", Blow.INTERRUPT),
    ),
    (
        _swapped("the controller is killed, and begins again at once", Blow.KILL, ends_well=True, again=True),
        _swapped("the controller is ended", Blow.TERMINATE, variables=STRANGERS),
    ),
    (
        _swapped("the controller's link is down", Blow.CUT),
        _swapped("the port for knocks is blocked on the way", Blow.MUTE),
    ),
    (
        _swapped("the controller moves to another address", Blow.MOVE, ends_well=True),
        _swapped("what swaps the files is killed", _APPLY_IS_KILLED, variables=STRANGERS, moment=Moment.ARMED),
    ),
    (
        _swapped("the host is booted", Blow.REBOOT, variables=STRANGERS),
        _swapped("the host's power fails", Blow.POWER, variables=STRANGERS),
    ),
    (
        _swapped("the unit that waits for the deadline is stopped", "systemctl stop doorward-change-wait"),
        _swapped(
            "the unit that waits for the deadline is killed",
            "systemctl kill --signal=KILL doorward-change-wait",
            variables=STRANGERS,
        ),
    ),
    (
        _swapped("systemd reloads its units all the time", _RELOADS, variables=STRANGERS),
        _swapped("somebody holds the lock for longer than the deadline", _LOCKED, variables=STRANGERS),
    ),
    (
        _swapped("the daemon is stopped", "systemctl stop doorwardd"),
        _swapped(
            "the daemon is masked",
            f"ln -sf /dev/null {_UNIT} && systemctl daemon-reload && systemctl kill --signal=KILL doorwardd",
            variables=PROGRAMS,
        ),
    ),
    (
        _swapped(
            "the archive, which the change left alone, is removed",
            "rm /usr/lib/doorward/doorward.pyz && systemctl kill --signal=KILL doorwardd",
        ),
        _swapped(
            "the daemon's unit, which the change left alone, is removed",
            f"rm {_UNIT} && systemctl daemon-reload && systemctl kill --signal=KILL doorwardd",
            variables=STRANGERS,
        ),
    ),
    (
        _swapped("the daemon hangs", "systemctl kill --signal=STOP doorwardd"),
        _swapped(
            "the new archive is damaged",
            ": >/usr/lib/doorward/doorward.pyz && systemctl kill --signal=KILL doorwardd",
            other_archive=True,
        ),
    ),
    (
        _swapped("/etc is read-only", _ETC_IS_READ_ONLY, _ETC_IS_WRITTEN, bars=True),
        _swapped("Python is missing", *_away("/usr/bin/python3"), RESTARTED, bars=True),
    ),
    (
        _swapped("sshd is at another port", _SSHD_ELSEWHERE, _SSHD_BACK, bars=True),
        _swapped("the host has other SSH keys", _OTHER_KEYS, _OLD_KEYS, bars=True),
    ),
    (
        _swapped("the owner's key is not accepted any more", *_away("/root/.ssh/authorized_keys"), bars=True),
        _swapped("another firewall closes the host", _ANOTHER_WALL, _NO_OTHER_WALL, bars=True),
    ),
)

# --- what strikes the table -------------------------------------------------------------------------------------------


def _table(  # noqa: PLR0913  the columns of the table
    name: str,
    strike: str | Blow,
    undo: str = "",
    variables: Mapping[str, Any] = TABLE,
    *,
    task: str = CLOSE,
    moment: Moment = Moment.CLOSED,
    bars: bool = False,
    ends_well: bool = False,
    leaves: tuple[str, ...] = (),
) -> Fault:
    """A fault that strikes what closes the host."""
    return Fault(
        name,
        "table",
        variables,
        FIREWALL,
        task,
        moment,
        strike,
        undo=undo,
        bars=bars,
        ends_well=ends_well,
        leaves=leaves,
    )


_CLOSED: Final = (
    (
        _table("the controller is killed", Blow.KILL, variables=SHUT),
        _table("the controller is interrupted", Blow.INTERRUPT),
    ),
    (
        _table("the controller's link is down", Blow.CUT),
        _table("the host's power fails", Blow.POWER, variables=SHUT),
    ),
    (
        _table("the table is deleted", "nft delete table inet doorward"),
        _table("all tables are deleted", "nft flush ruleset", moment=Moment.BEFORE, ends_well=True),
    ),
    (
        _table("the file of the table is lost", "rm /etc/doorward/firewall.nft", moment=Moment.BEFORE, ends_well=True),
        _table(
            "the file of the table is lost, and the controller killed",
            "rm /etc/doorward/firewall.nft && systemctl kill --signal=KILL doorwardd",
            ends_well=True,
        ),
    ),
    (
        _table("flock(1) is missing, and ssh dropped", *_away("/usr/bin/flock"), SHUT, moment=Moment.BEFORE),
        _table("nft(8) is missing, and ssh dropped", *_away("/usr/sbin/nft"), SHUT, bars=True),
    ),
    (
        _table("the unit that waits for the deadline is stopped", "systemctl stop doorward-fw-rollback"),
        _table(
            "the unit that waits for the deadline is killed",
            "systemctl kill --signal=KILL doorward-fw-rollback",
            variables=SHUT,
        ),
    ),
    (
        _table("/run is full", _RUN_IS_FULL, _RUN_HAS_ROOM, moment=Moment.BEFORE),
        _table("/etc is read-only", _ETC_IS_READ_ONLY, _ETC_IS_WRITTEN),
    ),
    (
        _table("the daemon is stopped", "systemctl stop doorwardd", "systemctl start doorwardd", bars=True),
        _table("the daemon is killed", "systemctl kill --signal=KILL doorwardd", ends_well=True),
    ),
    (
        _table(
            "the controller is killed once the table is proven and kept",
            Blow.KILL,
            task=LAST,
            moment=Moment.BEFORE,
            leaves=("/etc/doorward/firewall.nft",),
        ),
        Fault(
            "the controller is killed once the files are proven and kept",
            "enrolment",
            RELOADED,
            ACCESS,
            ENROLLED,
            strike=Blow.KILL,
            leaves=("/etc/doorward/access.conf", "/etc/doorward/access.redacted"),
        ),
    ),
    (
        Fault(
            "the inventory cannot be written",
            "enrolment",
            {"doorward_host_vars": "/proc/nowhere"},
            ACCESS,
        ),
        _table(
            "a public service is new, and the controller killed",
            Blow.KILL,
            variables={"doorward_public_services": ["tcp/8443"]},
        ),
    ),
)

TURNS: Final = (*_REFUSED, *_NOT_BEGUN, *_NOT_PROVEN, *_STAGED, *_SWAPPED, *_CLOSED)
