#!/bin/sh
# The roles end; people's work and data stay. An upgrade ($1: "upgrade", or 1 on
# RPM systems) leaves all as it is.
case $1 in upgrade | 1) exit 0 ;; esac
if [ -d /run/systemd/system ]; then
  systemctl disable --now quire.service 2>/dev/null || true
else
  /opt/quire/bin/quire stop >/dev/null 2>&1 || true
fi
echo "Left alone: /etc/quire, /var/lib/quire, /var/log/quire, /projects and the accounts. Remove them by hand if nobody needs them."
