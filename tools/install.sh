#!/usr/bin/env bash
# Installs what is asked for and missing, and says so; does nothing where all is there.
#
#   tools/install.sh build|media|web|browser|python|clients|bench|peers|plot …
#
# build: a C compiler, rustfmt, clippy. media: ffmpeg. web: node and npm. browser: Chromium. python: what tests/foreign needs. clients: curl. bench: fio.
# peers: the servers and clients that benches/src/peers.rs compares with, of several Debian releases. plot: Matplotlib.
#
# Debian packages come by apt-get, as root or with sudo; a newer node where Debian's is too old, Python packages, and the peers, each Debian release in a folder of its own, go to the cache directory ($LARDER_CACHE) and nowhere else.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
cache=${LARDER_CACHE:?run by make, which sets it}

as_root=()
become_root() {
    [ "$(id -u)" -ne 0 ] || return 0
    command -v sudo >/dev/null || { echo "neither root nor sudo: install them by hand" >&2; exit 1; }
    as_root=(sudo)
}

packages=()
need() { # command package
    command -v "$1" >/dev/null || packages+=("$2")
}

# The mirror that this machine's own apt takes Debian from. On another system say which: LARDER_DEBIAN_MIRROR=http://…
debian_mirror() {
    local mirror=${LARDER_DEBIAN_MIRROR:-}
    [ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' 'Origin: Debian' | grep -v security | head -n 1)
    [ -n "$mirror" ] || { echo "apt names no mirror of Debian: set LARDER_DEBIAN_MIRROR" >&2; exit 1; }
    echo "$mirror"
}

# A minimal Debian of that release in a folder of its own, with these packages; nothing is started in it, and nothing outside of it changes.
unpack() { # release package …
    local release=$1 root=$cache/peers/$1; shift
    local stamp script=()
    stamp=$root/$(echo "$@" | sha256sum | cut -c1-16).installed
    [ ! -e "$stamp" ] || return 0
    echo "installing Debian $release with $* into $root" >&2
    become_root
    if [ ! -e "$root/unpacked" ]; then
        "${as_root[@]}" rm -rf "$root"
        # A release that is newer than debootstrap is set up as the newest is.
        [ -e "/usr/share/debootstrap/scripts/$release" ] || script=(/usr/share/debootstrap/scripts/sid)
        mkdir -p "$cache/peers"
        "${as_root[@]}" env $(apt-config shell http_proxy Acquire::http::Proxy | tr -d "'") \
            debootstrap --variant=minbase "$release" "$root" "$(debian_mirror)" "${script[@]}" >&2
        # invoke-rc.d(8) starts no service where this says 101.
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$root/usr/sbin/policy-rc.d" >/dev/null
        "${as_root[@]}" chmod +x "$root/usr/sbin/policy-rc.d"
        # The proxy of this machine's apt; and a mirror may stand still, which a release in the making forbids. Signatures are checked all the same.
        { apt-config dump Acquire::http Acquire::https; echo 'Acquire::Check-Valid-Until "false";'; } | "${as_root[@]}" tee "$root/etc/apt/apt.conf.d/machine" >/dev/null
        "${as_root[@]}" touch "$root/unpacked"
    fi
    "${as_root[@]}" chroot "$root" apt-get update -q >&2
    "${as_root[@]}" chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" >&2
    "${as_root[@]}" chroot "$root" apt-get clean
    "${as_root[@]}" touch "$stamp"
}

python_packages() { # requirements folder
    local requirements=$1 venv=$cache/$2
    local stamp
    stamp=$venv/$(sha256sum <"$requirements" | cut -c1-16).installed
    [ ! -e "$stamp" ] || return 0
    echo "installing $(tr '\n' ' ' <"$requirements")into $venv" >&2
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements" >&2
    touch "$stamp"
}

node_is_new() {
    [ "$(node -p 'Number(process.versions.node.split(".")[0]) >= 20' 2>/dev/null)" = true ]
}

for what in "$@"; do
    case $what in
        build)
            need cc build-essential
            cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
            cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
            ;;
        media) need ffmpeg ffmpeg; need ffprobe ffmpeg ;;
        web) node_is_new || need node nodejs; need npm npm ;;
        browser) need "${CHROMIUM:-chromium}" chromium; [ -d /usr/share/fonts/truetype ] || packages+=(fonts-dejavu-core) ;;
        python|plot) python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv) ;;
        clients) need curl curl ;;
        bench) need fio fio ;;
        peers) need debootstrap debootstrap; need ip iproute2 ;;
        *) echo "install.sh: what is $what?" >&2; exit 2 ;;
    esac
done

if [ ${#packages[@]} -gt 0 ]; then
    echo "installing Debian packages: ${packages[*]}" >&2
    become_root
    "${as_root[@]}" apt-get update -q >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${packages[@]}" >&2
fi

for what in "$@"; do
    case $what in
        web)
            if ! node_is_new; then
                echo "installing node 22 into $cache/node, as $(node --version) is too old for the player's tools" >&2
                npm install --silent --no-fund --no-audit --prefix "$cache/node" node@22 >&2
            fi
            ;;
        python) python_packages tests/foreign/requirements.txt python ;;
        plot) python_packages benches/requirements.txt plot ;;
        peers)
            # Each from the newest release that has it.
            unpack forky nginx curl nghttp2-client wrk caddy haproxy
            unpack trixie varnish hitch
            unpack bookworm trafficserver h2o
            forky=("${as_root[@]}" chroot "$cache/peers/forky")
            "${forky[@]}" curl -V | grep -q ngtcp2 || { echo "forky's curl speaks no HTTP/3 by ngtcp2" >&2; exit 1; }
            "${forky[@]}" nginx -V 2>&1 | grep -q http_v3 || { echo "forky's nginx speaks no HTTP/3" >&2; exit 1; }
            ;;
    esac
done
