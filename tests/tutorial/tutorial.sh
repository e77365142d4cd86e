#!/bin/sh
# The commands of the old tutorials, as they are written there, against a running doorwardd: `make tutorial`.
#
# In the environment: HOST where to knock, IP and OTHER two addresses of this machine, RECIPIENT the host's GnuPG key and
# SIGNER the one of this machine, CLOSE a command that closes on the host what was opened. ~/.fwknoprc has the keys that
# the host has too, and the web site that tells addresses. The host lets nobody in to port 22; its mail service at port
# 110 is for everybody.
set -eu

title() { printf '\n# %s\n' "$*"; }

# Show a command and run it.
run() {
  printf '$ %s\n' "$*"
  "$@"
  sleep 0.2
}

# Say who answers at a port of the host, seen from one of this machine's addresses.
answer() {
  nc -w 2 -s "$1" "$HOST" "$2" </dev/null 2>/dev/null | head -n 1 || :
}

show() {
  said=$(answer "$1" "$2")
  printf '  %s sees at port %s: %s\n' "$1" "$2" "${said:-nobody}"
}

title "Before any knock nobody sees the SSH server."
show "$IP" 22
show "$OTHER" 22

title "A symmetric key; -s lets in whatever address the packet comes from."
run doorward -A tcp/22 -s -k "$HOST"
show "$IP" 22
show "$OTHER" 22
$CLOSE

title "-f says for how many seconds; then the door is closed again by itself."
run doorward -A tcp/22 -s -f 1 -k "$HOST"
while [ -n "$(answer "$IP" 22)" ]; do sleep 0.2; done
show "$IP" 22

title "-w asks a web site for this machine's address and puts it into the packet."
run doorward -A tcp/22 -w -k "$HOST"
show "$IP" 22
$CLOSE

title "-a names the address, here one that the packet does not come from."
run doorward -A tcp/22 -a "$OTHER" -k "$HOST"
show "$IP" 22
show "$OTHER" 22
$CLOSE

title "GnuPG: encrypted for the host, signed by this machine."
run doorward -A tcp/22 --gpg-recip "$RECIPIENT" --gpg-sign "$SIGNER" -a "$IP" -k "$HOST"
show "$IP" 22
show "$OTHER" 22
$CLOSE

title "A ghost service: netcat listens at 6543, and is reached under the number of the mail service."
show "$IP" 110
show "$IP" 6543
run doorward -A tcp/6543 --NAT-access "$HOST:110" --NAT-local -a "$IP" -D "$HOST"
show "$IP" 110
show "$OTHER" 110
$CLOSE
show "$IP" 110
