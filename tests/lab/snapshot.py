"""All that doorward could leave on a host: files, users, units, tables, rules, settings of the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.trial import Trial

BEFORE: dict[str, str] = {}
"""What each host was like before its first roll-out."""

# Left out is what Ansible, apt, sudo, Python and systemd keep for themselves, what a running host writes, and the note
# that visit.yml leaves.
_SCRIPT = """
LC_ALL=C
export LC_ALL
find /etc /usr /opt /srv /root /home /var /boot -xdev \\
  \\( -name .ansible -o -name .ansible_async -o -name .sudo_as_admin_successful -o -name visited -o -name __pycache__ \\
  -o -path /var/log -o -path /var/cache -o -path /var/tmp \\
  -o -path /var/lib/apt -o -path /var/lib/sudo -o -path /var/lib/systemd -o -path /var/lib/dpkg \\) -prune \\
  -o -printf '%p %y %m %u %g %l\\n' | grep -v -- '^/[^ ]*- f ' | sort
find /etc -xdev -type f ! -name '*-' -exec sha256sum {} + | sort -k 2
find /run -xdev -name 'doorward*'
systemctl list-unit-files --no-legend --no-pager | sort
systemctl list-units --all --plain --no-legend --no-pager 'doorward*'
nft list ruleset
for program in iptables-save ip6tables-save; do ! command -v $program >/dev/null || $program; done
sysctl -a 2>/dev/null | grep -v nf_conntrack_count | grep -E \\
  '^net\\.(ipv4\\.ip_forward|ipv[46]\\.conf\\.(all|default|eth0)\\.forwarding|netfilter\\.nf_conntrack_)'
"""


def snapshot(trial: Trial) -> str:
    """The list, as text."""
    return trial.console("sh", "-c", _SCRIPT)
