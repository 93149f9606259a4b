# shellcheck shell=bash
# A throwaway PostgreSQL for the tests, sourced by tests/run. Call start_postgres once, and stop_postgres from the
# EXIT trap. It installs the server on Debian when there is none, and touches no cluster but its own.

pg_bin=    # folder of initdb, pg_ctl and pg_isready
pg_dir=    # our cluster and its socket; empty when there is nothing to stop
pg_as=()   # what to put before a command to run it as the cluster's owner: the server refuses to run as root

# Exports DATABASE_URL_POSTGRES, unless the caller brought their own server or one is started already. Says why and
# returns 1 when it cannot.
start_postgres() {
    if [[ -z ${DATABASE_URL_POSTGRES:-} ]] && ! make_cluster; then
        stop_postgres
        return 1
    fi
}

stop_postgres() {
    if [[ -n $pg_dir ]]; then
        halt_postgres
        rm -rf "$pg_dir"
        pg_dir=
    fi
}

make_cluster() {
    if ! find_postgres; then
        install_postgres || return 1
        if ! find_postgres; then
            echo "tests/run: apt installed postgresql, but there is no initdb in /usr/lib/postgresql/*/bin" >&2
            return 1
        fi
    fi

    pg_dir=$(mktemp -d -t board-postgres.XXXXXX) || return 1
    if ((EUID == 0)); then
        if ! chown postgres "$pg_dir"; then
            echo "tests/run: running as root needs a system user 'postgres' to own the server" >&2
            return 1
        fi
        pg_as=(setpriv --reuid=postgres --regid="$(id -g postgres)" --init-groups --)
    fi
    if ! as_postgres initdb --pgdata="$pg_dir/data" --auth=trust --username=postgres --no-sync --encoding=UTF8 \
        --locale=C.UTF-8 >"$pg_dir/initdb.log" 2>&1; then
        postgres_failed "initdb failed in $pg_dir" "$pg_dir/initdb.log"
        return 1
    fi

    # Another process can take the free port before the server does, hence more than one try.
    local port try
    for try in 1 2 3; do
        port=$(free_port) || return 1
        write_postgres_settings "$port" || return 1
        if as_postgres pg_ctl start --pgdata="$pg_dir/data" --wait --timeout=30 --log="$pg_dir/server.log" \
            >"$pg_dir/pg_ctl.log" 2>&1 &&
            as_postgres pg_isready --quiet --host=127.0.0.1 --port="$port" --timeout=10; then
            export DATABASE_URL_POSTGRES="postgres://postgres@127.0.0.1:$port/postgres"
            return 0
        fi
        echo "tests/run: PostgreSQL did not start on port $port (try $try of 3)" >&2
        halt_postgres
    done
    postgres_failed "PostgreSQL does not start" "$pg_dir/pg_ctl.log" "$pg_dir/server.log"
    return 1
}

# Sets pg_bin: the highest version that Debian's packages put side by side, else what is in PATH.
find_postgres() {
    local found
    found=$(printf '%s\n' /usr/lib/postgresql/*/bin/initdb | sort -V | tail -n 1)
    if [[ ! -x $found ]]; then
        found=$(command -v initdb) || return 1
        found=$(readlink -f "$found")
    fi
    pg_bin=$(dirname "$found")
    [[ -x $pg_bin/postgres && -x $pg_bin/pg_ctl && -x $pg_bin/pg_isready ]]
}

install_postgres() {
    local root=()
    if ! command -v apt-get >/dev/null; then
        echo "tests/run: PostgreSQL is missing: install it, or set DATABASE_URL_POSTGRES to a server for tests" >&2
        return 1
    fi
    if ((EUID != 0)); then
        root=(sudo -n)
        if ! sudo -n true 2>/dev/null; then
            echo "tests/run: PostgreSQL is missing and installing it needs root: run 'apt-get install postgresql'" \
                "as root, or set DATABASE_URL_POSTGRES to a server for tests" >&2
            return 1
        fi
    fi
    local apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120)
    echo "tests/run: installing PostgreSQL"
    "${apt[@]}" update || "${apt[@]}" update || true # the lists at hand may do
    # postgresql-common first: its setting keeps the server package from making and starting a cluster of its own.
    if ! "${apt[@]}" install --no-install-recommends postgresql-common ||
        ! "${root[@]}" sed -i -E 's/^#?\s*create_main_cluster\s*=.*/create_main_cluster = false/' \
            /etc/postgresql-common/createcluster.conf ||
        ! "${apt[@]}" install --no-install-recommends postgresql; then
        echo "tests/run: apt-get could not install postgresql; see its messages above" >&2
        return 1
    fi
}

# Speed over safety: the data does not outlive the run.
write_postgres_settings() {
    local conf=$pg_dir/data/postgresql.conf
    [[ -e $conf.initdb ]] || cp "$conf" "$conf.initdb" || return 1
    {
        cat "$conf.initdb"
        cat <<SETTINGS
listen_addresses = '127.0.0.1'
port = $1
unix_socket_directories = '$pg_dir'
max_connections = 200
fsync = off
synchronous_commit = off
full_page_writes = off
SETTINGS
    } >"$conf"
}

# From inside the cluster's folder: the owner may not be allowed into the folder we run in.
as_postgres() {
    local tool=$1
    shift
    (cd "$pg_dir" && exec "${pg_as[@]}" "$pg_bin/$tool" "$@" </dev/null)
}

halt_postgres() {
    if [[ -e $pg_dir/data/postmaster.pid ]]; then
        as_postgres pg_ctl stop --pgdata="$pg_dir/data" --mode=immediate --silent || true
    fi
}

postgres_failed() {
    echo "tests/run: $1:" >&2
    shift
    cat "$@" >&2 || true
}
