#!/usr/bin/env bash
# Makes this host a whole site of one: the release in /root/release.tar.gz, PostgreSQL, ffmpeg, and a node on each disk.
#
#   install.sh DISK...    names of disks, /dev/disk/by-id/vstack-lab-DISK
#
# By hand, as far as units are concerned: what the roles do for an operator is not what is tried here.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

install_release() {
  apt-get install -y -q --no-install-recommends python3-venv postgresql ffmpeg >/root/apt.log 2>&1 || {
    cat /root/apt.log
    exit 1
  }
  mkdir -p /opt/vstack/releases
  tar --extract --gzip --file /root/release.tar.gz --directory /opt/vstack/releases
  local release
  release=$(echo /opt/vstack/releases/vstack-*)
  python3 -m venv "$release"
  PIP_CONFIG_FILE=/dev/null "$release/bin/pip" install --quiet --disable-pip-version-check --no-index \
    --find-links "$release/wheels" --require-hashes --requirement "$release/requirements.lock"
  ln -sfn "$release" /opt/vstack/current
  cp -r "$release"/systemd/vstack* /etc/systemd/system/
  install -D -t /etc/sysusers.d "$release"/systemd/sysusers.d/*
  install -D -t /etc/tmpfiles.d "$release"/systemd/tmpfiles.d/*
  systemd-sysusers
  systemd-tmpfiles --create /etc/tmpfiles.d/vstack.conf
}

# The password has what must be escaped in a password file.
make_secrets() {
  head -c 32 /dev/urandom | base64 >/etc/vstack/credentials/cluster.key
  printf '*:*:vstack:vstack:secret\\:word\n' >/etc/vstack/credentials/pgpass
  chmod 0600 /etc/vstack/credentials/*
  su postgres -c "psql --quiet --command \"create user vstack password 'secret:word'\""
  su postgres -c "createdb --owner vstack vstack"
}

# settings FILE: from standard input.
settings() {
  cat >"$1"
  chgrp vstack "$1"
  chmod 0640 "$1"
}

make_disk() {
  mkfs.ext4 -q "/dev/disk/by-id/vstack-lab-$1"
  mkdir -p "/srv/vstack/$1"
  echo "/dev/disk/by-id/vstack-lab-$1 /srv/vstack/$1 ext4 noatime,nofail 0 2" >>/etc/fstab
  systemctl daemon-reload
  systemctl start "srv-vstack-$1.mount"
  install -d -o vstack -g vstack -m 0700 "/srv/vstack/$1/node"
  settings "/etc/vstack/storage/$1.toml" <<END
service = "storage"
data_dir = "/srv/vstack/$1/node"
cluster_key_file = "cluster.key"
metadata_urls = ["http://127.0.0.1:8080"]
superblock_bytes = 16777216
host_id = "$1"
port = $2
END
}

install_release
make_secrets
port=8081
for disk in "$@"; do
  make_disk "$disk" "$port"
  port=$((port + 1))
done
settings /etc/vstack/metadata.toml <<END
service = "metadata"
database_url = "postgresql://vstack@127.0.0.1/vstack"
cluster_key_file = "cluster.key"
END
settings /etc/vstack/uploader.toml <<END
service = "uploader"
data_dir = "/var/lib/vstack/uploader"
media_socket = "/run/vstack/media.sock"
metadata_urls = ["http://127.0.0.1:8080"]
END
settings /etc/vstack/client.toml <<END
service = "client"
END
systemctl daemon-reload
systemctl enable --quiet vstack.target vstack-metadata vstack-media.socket vstack-uploader vstack-client \
  "${@/#/vstack-storage@}"
systemctl start vstack.target
