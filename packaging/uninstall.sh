#!/usr/bin/env bash
# Takes Quire off this machine and leaves what belongs to people.
#
#   uninstall.sh [--data]
#
#   --data  also /etc/quire, /var/lib/quire and /var/log/quire: keys, accounts'
#           numbers, the database. Never /projects, and never a Linux account.
set -euo pipefail
case ${1:-} in
'' | --data) ;;
*) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
esac
[ "$(id -u)" -eq 0 ] || { echo "uninstall.sh: this needs root" >&2; exit 1; }
if [ -d /run/systemd/system ]; then
  systemctl disable --now quire.service 2>/dev/null || true
  rm -f /etc/systemd/system/quire.service
  systemctl daemon-reload
else
  /opt/quire/bin/quire stop --sessions 2>/dev/null || /opt/quire/bin/quire stop 2>/dev/null || true
  rm -f /etc/init.d/quire /etc/init.d/quire-server /etc/init.d/quire-gateway /etc/init.d/quire-compute
fi
rm -f /usr/bin/quire /etc/logrotate.d/quire
rm -rf /opt/quire
if [ "${1:-}" = --data ]; then
  rm -rf --one-file-system /etc/quire /var/lib/quire /var/log/quire
else
  echo "Left: /etc/quire, /var/lib/quire, /var/log/quire (--data removes them)."
fi
echo "Left: /projects and the accounts."
