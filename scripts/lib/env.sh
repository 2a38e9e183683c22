# Makes the Python environment that scripts/* run in. Sourced by them; needs bash and Python 3.11 to 3.13.
#
# It lives in .venv inside the checkout and is made again only when a lock file or the project's own metadata changed.
# Every package is checked against the hash in its lock file. Nothing is written outside the checkout.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv="$root/.venv"

die() {
  printf '%s\n' "$*" >&2
  exit 1
}

find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  die "V-Stack needs Python 3.11, 3.12 or 3.13; none of python3, python3.13, python3.12, python3.11 is one."
}

make_venv() {
  local python
  [ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1 && return
  python=$(find_python)
  rm -rf "$venv"
  "$python" -m venv "$venv" 2>/dev/null || make_venv_without_ensurepip "$python" ||
    die "Python cannot make virtual environments here. On Debian or Ubuntu: apt-get install python3-venv"
}

# A Debian without python3-venv has the module venv but no pip to put in. It comes from a pip that is there, or from
# Debian's package of pip's wheel, which is unpacked and not installed: no root needed.
make_venv_without_ensurepip() {
  local unpacked="$venv/debian" wheel
  rm -rf "$venv"
  "$1" -m venv --without-pip "$venv" 2>/dev/null || return
  "$1" -m pip --python "$venv/bin/python" --no-cache-dir --quiet install pip 2>/dev/null && return
  mkdir "$unpacked"
  (cd "$unpacked" && apt-get download -qq python3-pip-whl >/dev/null 2>&1 && dpkg-deb -x ./*.deb .) &&
    wheel=$(compgen -G "$unpacked/usr/share/python-wheels/pip-*.whl") &&
    "$venv/bin/python" "$wheel/pip" --no-cache-dir --quiet install --no-index "$wheel" &&
    rm -rf "$unpacked" && return
  rm -rf "$venv"
  return 1
}

# install_lock FILE: what the lock file names, unless that was done for this very content.
install_lock() {
  local lock="$root/$1" stamp="$venv/.installed-$1"
  cmp -s "$lock" "$stamp" && return
  printf 'Installing %s ...\n' "$1" >&2
  # The cache would be outside the checkout.
  "$venv/bin/python" -m pip --disable-pip-version-check --no-cache-dir --quiet install --require-hashes -r "$lock" ||
    die "Installing $1 failed."
  cp "$lock" "$stamp"
}

# The package itself, editable: only its metadata and entry point are installed.
install_project() {
  local stamp="$venv/.installed-pyproject.toml"
  cmp -s "$root/pyproject.toml" "$stamp" && [ -x "$venv/bin/vstack" ] && return
  "$venv/bin/python" -m pip --disable-pip-version-check --no-cache-dir --quiet install --no-deps -e "$root" ||
    die "Installing the project failed."
  cp "$root/pyproject.toml" "$stamp"
}

# prepare LOCK...: the environment with these lock files, in the order given. One script at a time makes it.
prepare() {
  local lock
  exec 9<"$root/pyproject.toml"
  flock 9
  make_venv
  for lock in "$@"; do install_lock "$lock"; done
  install_project
  exec 9>&-
}

# prepare_deploy: the environment of Ansible and its tests, .venv-deploy, apart from that of the services.
prepare_deploy() {
  local venv="$root/.venv-deploy"
  exec 9<"$root/pyproject.toml"
  flock 9
  make_venv
  install_lock requirements-deploy.lock
  exec 9>&-
}

# Lock files for the programs that the local cluster needs and this machine lacks.
missing_programs() {
  if ! compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null ||
    ! command -v ffmpeg >/dev/null || ! command -v ffprobe >/dev/null; then
    printf 'requirements-embedded.lock\n'
  fi
}
