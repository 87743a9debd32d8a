#!/usr/bin/env bash
# Makes this machine a part of a Quire installation.
#
#   install.sh ROLE [-w SERVER] [-t TOKEN_FILE] [-g GATEWAY] [-a APPS] [-b]
#
#   ROLE  server, gateway, compute, or all (everything on one machine)
#   -w    the portal's address, as in http://quire.example.org; on the server, the one it gets
#   -g    compute: the address of its gateway, as in http://gateway.example.org:8089
#   -t    a file with a join token (- is standard input); without it the last line says how to join
#   -a    gateway: where browsers find its apps, as in https://*.apps.example.org
#   -b    ask nothing
#
# It can be run again: what is there already stays. AEN_SRVC_ACCT=NAME calls the
# accounts of the roles NAME-server, NAME-gateway and NAME-compute.
set -euo pipefail
prefix=/opt/quire logs=/var/log/quire conf=/etc/quire/quire.conf
here=$(cd "$(dirname "$0")" && pwd)

stop() {
  printf 'install.sh: %s\n' "$@" >&2
  exit 1
}
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; }

role=${1:-}
case $role in
server | gateway | compute) roles="\"$role\"" ;;
all) roles='"server", "gateway", "compute"' ;;
-h | --help | '') usage; exit 0 ;;
*) usage >&2; exit 2 ;;
esac
shift
server='' gateway='' token='' apps='' ask=yes
while getopts w:g:t:a:b option; do
  case $option in
  w) server=$OPTARG ;;
  g) gateway=$OPTARG ;;
  t) token=$OPTARG ;;
  a) apps=$OPTARG ;;
  b) ask= ;;
  *) usage >&2; exit 2 ;;
  esac
done
[ "$(id -u)" -eq 0 ] || stop "this needs root"
[ "$(uname -m)" = x86_64 ] || stop "this package is for x86_64, and this machine is $(uname -m)"

printf '%s\n' "Role:      $role" "Prefix:    $prefix" "Settings:  $conf" "Data:      /var/lib/quire" "Logs:      $logs"
case $role in compute | all) echo "Projects:  /projects" ;; esac
if [ -n "$ask" ]; then
  read -r -p "Install? [Y/n] " answer
  case $answer in '' | y* | Y*) ;; *) exit 1 ;; esac
fi

# What the role runs with. Packages that came along are taken first.
needs="acl git"
case $role in compute | all) needs="$needs python3 python3-venv python3-pip python3-ipykernel python3-numpy python3-pandas python3-matplotlib jupyter-notebook iproute2 passwd" ;; esac
if command -v dpkg-query >/dev/null; then
  missing=
  for p in $needs; do
    dpkg-query -W -f '${Status}\n' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
  done
  if [ -n "$missing" ]; then
    echo "Installing:$missing"
    apt=(apt-get)
    if [ -e "$here/packages/Packages" ]; then
      # apt puts them in order, and leaves alone what is here in a newer version.
      lists=$(mktemp -d)
      trap 'rm -rf "$lists"' EXIT
      mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial"
      echo "deb [trusted=yes] file:$here/packages ./" >"$lists/sources.list"
      apt+=(-o Dir::Etc::SourceList="$lists/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$lists/lists"
        -o Dir::Cache="$lists/cache" -o APT::Sandbox::User=root)
      "${apt[@]}" -qq update
    fi
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y --no-install-recommends $missing
  fi
elif command -v dnf >/dev/null; then
  dnf install -y acl git-core shadow-utils
  case $role in compute | all) dnf install -y python3 python3-pip iproute || stop "python3 and iproute could not be installed" ;; esac
else
  echo "This is neither a Debian nor a Red Hat system. Needed are: $needs"
fi

# The program, unless the package manager has brought it.
if [ "$here" != $prefix/share ]; then
  install -d -m 0755 $prefix/bin $prefix/share
  install -m 0755 "$here/bin/quire" $prefix/bin/quire.new
  mv -f $prefix/bin/quire.new $prefix/bin/quire
  cp -R "$here/share/." $prefix/share/
  ln -sfn $prefix/bin/quire /usr/bin/quire
  [ -e /etc/logrotate.d/quire ] || install -D -m 0644 "$here/share/logrotate" /etc/logrotate.d/quire
fi
quire=$prefix/bin/quire

# A conda prefix that came along is what environments are made from.
conda=
if [ -e "$here/conda.tar.gz" ]; then
  case $role in compute | all) conda=$prefix/conda ;; esac
fi
if [ -n "$conda" ] && [ ! -d "$conda" ]; then
  install -d -m 0755 "$conda.new"
  tar -C "$conda.new" --no-same-owner -xzf "$here/conda.tar.gz"
  mv "$conda.new" "$conda"
fi

if [ -n "$server" ] && { [ "$role" = gateway ] || [ "$role" = compute ]; }; then
  $quire doctor reach "$server" || stop "the server does not answer at $server"
fi
if [ -n "$gateway" ]; then
  $quire doctor reach "$gateway" || stop "the gateway does not answer at $gateway"
fi

if [ ! -e $conf ]; then
  install -d -m 0755 /etc/quire
  {
    echo "// This machine's settings. /usr/share/doc/quire/admin/configuration.md lists every key."
    echo "{"
    echo "  \"roles\": [$roles],"
    [ -z "${AEN_SRVC_ACCT:-}" ] || echo "  \"service_accounts\": \"$AEN_SRVC_ACCT\","
    case $role in
    server | all) [ -z "$server" ] || echo "  \"portal\": \"$server\"," ;;
    esac
    [ -z "$conda" ] || echo "  \"root_environment\": \"$conda\","
    case $role-$server in
    server-* | all-http://*[!0-9:]) echo "  \"listen\": { \"portal\": \":80\" }," ;;
    esac
    echo "}"
  } >$conf
fi

# The service.
if [ -d /run/systemd/system ]; then
  install -m 0644 $prefix/share/systemd/quire.service /etc/systemd/system/quire.service
  systemctl daemon-reload
  systemctl enable quire.service
  start="systemctl start quire.service"
else
  for name in quire $(echo "$roles" | tr -d '",' | sed 's/[a-z]*/quire-&/g'); do
    install -m 0755 $prefix/share/init/quire "/etc/init.d/$name"
  done
  if command -v update-rc.d >/dev/null; then update-rc.d quire defaults >/dev/null; fi
  start="/etc/init.d/quire start"
fi
# What runs already becomes the new program under people's hands.
if $quire status >/dev/null 2>&1; then $quire restart all; else $start; fi

# The check.
for _ in $(seq 60); do
  $quire status >/dev/null 2>&1 && break
  sleep 0.5
done
$quire status || stop "not everything runs; the logs are in $logs"
if [ -n "$token" ]; then
  case $role in
  gateway) exec $quire gateway join --server "$server" --token-file "$token" ${apps:+--apps "$apps"} ;;
  compute) exec $quire compute join --gateway "$gateway" --token-file "$token" ;;
  esac
fi
case $role in
server | all) echo "Open $($quire admin setup-link)" ;;
gateway) echo "Make a token on the server (Administration, Data centers), then: quire gateway join --server ${server:-URL} --token-file -" ;;
compute) echo "Make a token on the server (Administration, Enterprise resources), then: quire compute join --gateway ${gateway:-URL} --token-file -" ;;
esac
