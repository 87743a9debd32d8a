#!/bin/sh
# After the files are there: nothing is started that somebody has not asked for,
# and what runs goes on with the new program.
set -e
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
fi
if /opt/quire/bin/quire status >/dev/null 2>&1 && ! /opt/quire/bin/quire restart all; then
  echo "Quire runs on as it was. \"service quire restart\" takes the new program into use with a short pause; people's work goes on."
fi
echo "Quire is in /opt/quire. Next: /opt/quire/share/install.sh server (or gateway, or compute)."
