#!/usr/bin/env bash
# Installs what is asked for and missing, and says so; does nothing where all is there.
#
#   tools/install.sh build|media|web|browser|python|bench …
#
# build: a C compiler, rustfmt, clippy. media: ffmpeg. web: node and npm. browser: Chromium. python: what tests/foreign needs. bench: fio.
#
# Debian packages come by apt-get, as root or with sudo; a newer node where Debian's is too old, and the Python packages of
# the tests, go to the cache directory ($LARDER_CACHE) and nowhere else.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${LARDER_CACHE:?run by make, which sets it}

packages=()
need() { # command package
    command -v "$1" >/dev/null || packages+=("$2")
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
        python) python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv) ;;
        bench) need fio fio ;;
        *) echo "install.sh: what is $what?" >&2; exit 2 ;;
    esac
done

if [ ${#packages[@]} -gt 0 ]; then
    echo "installing Debian packages: ${packages[*]}" >&2
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || { echo "neither root nor sudo: install them by hand" >&2; exit 1; }
        as_root=(sudo)
    fi
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
        python)
            requirements=tests/foreign/requirements.txt
            venv=$cache/python
            stamp=$venv/$(sha256sum <"$requirements" | cut -c1-16).installed
            if [ ! -e "$stamp" ]; then
                echo "installing $(tr '\n' ' ' <"$requirements")into $venv" >&2
                python3 -m venv --clear "$venv"
                "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements" >&2
                touch "$stamp"
            fi
            ;;
    esac
done
