# shellcheck shell=bash
# A real Chromium for the tests, sourced by tests/run. Call start_chromium, then fetch_axe where the accessibility rules
# are wanted (from npm), and stop_chromium from the EXIT trap. It installs Debian's browser and driver when they are missing.
# Needs tests/lib/ports.sh.

AXE_VERSION=4.14.1
AXE_SHA512=1477dafa598d8d065f273d6af302aa203c02e83131707b7fa648cd41bd3d6b734f8c22a0dab86ee6a6f64b8afbe804b214d36db85a2826965edfb3a0b9d546b5 # the registry's `integrity`, in hexadecimal

chromium_dir=    # the driver's log and the rules; empty when there is nothing to stop
chromium_driver= # the driver's process, and the group of every browser that it starts

# Exports WEBDRIVER_URL, unless the caller brought their own or one is started already. Says why and returns 1 when it
# cannot.
start_chromium() {
    if [[ -z $chromium_dir ]]; then
        chromium_dir=$(mktemp -d -t board-chromium.XXXXXX) || return 1
    fi
    if [[ -z ${WEBDRIVER_URL:-} ]]; then
        if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then
            install_chromium || return 1
        fi
        start_driver || return 1
    fi
}

stop_chromium() {
    if [[ -n $chromium_driver ]]; then
        kill -KILL -- "-$chromium_driver" 2>/dev/null || true
        wait "$chromium_driver" 2>/dev/null || true
        chromium_driver=
    fi
    if [[ -n $chromium_dir ]]; then
        rm -rf "$chromium_dir"
        chromium_dir=
    fi
}

install_chromium() {
    local root=()
    if ! command -v apt-get >/dev/null; then
        echo "tests/run: chromium and chromedriver are missing: install both, or set WEBDRIVER_URL" >&2
        return 1
    fi
    if ((EUID != 0)); then
        root=(sudo -n)
        if ! sudo -n true 2>/dev/null; then
            echo "tests/run: installing a browser needs root: run 'apt-get install chromium chromium-driver' as root" >&2
            return 1
        fi
    fi
    local apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120)
    echo "tests/run: installing Chromium and its driver"
    "${apt[@]}" update || "${apt[@]}" update || true # the lists at hand may do
    if ! "${apt[@]}" install --no-install-recommends chromium chromium-driver fonts-dejavu-core; then
        echo "tests/run: apt-get could not install chromium and chromium-driver; see its messages above" >&2
        return 1
    fi
}

# Exports AXE_CORE, unless the caller brought their own. The package is believed by its digest, wherever it came from.
fetch_axe() {
    local packed
    if [[ -n ${AXE_CORE:-} ]]; then
        return 0
    fi
    if ! command -v npm >/dev/null; then
        echo "tests/run: npm is missing: it fetches axe-core; install it, or set AXE_CORE to its axe.min.js" >&2
        return 1
    fi
    packed=$(cd "$chromium_dir" && npm pack --silent "axe-core@$AXE_VERSION" | tail -n 1) || packed=
    if [[ -z $packed || ! -f $chromium_dir/$packed ]]; then
        echo "tests/run: npm could not fetch axe-core $AXE_VERSION" >&2
        return 1
    fi
    if ! echo "$AXE_SHA512  $chromium_dir/$packed" | sha512sum --check --quiet; then
        echo "tests/run: axe-core $AXE_VERSION is not the package that was pinned: its SHA-512 differs" >&2
        return 1
    fi
    tar -xzf "$chromium_dir/$packed" -C "$chromium_dir" package/axe.min.js || return 1
    export AXE_CORE=$chromium_dir/package/axe.min.js
}

# In a session of its own, so that ending its group ends the browsers too, and nothing else.
start_driver() {
    local port
    TMPDIR=$chromium_dir setsid chromedriver --port=0 >"$chromium_dir/driver.log" 2>&1 &
    chromium_driver=$!
    port=$(announced_port 's/.*started successfully on port \([0-9]*\)\..*/\1/p' "$chromium_dir/driver.log" $!) || return 1
    export WEBDRIVER_URL="http://127.0.0.1:$port"
}
