# shellcheck shell=bash
# Ports of the servers that the tests start, sourced by tests/run before the files that start them.

# One that is free at this moment; another process may take it before the caller's does.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# announced_port SED LOG PID: the port that a server which was told to choose one writes into its log, where the sed
# script finds it. Shows the log and returns 1 when the process ends without a word, or says nothing in 30 seconds.
announced_port() {
    local script=$1 log=$2 pid=$3 port try
    for ((try = 0; try < 300; try++)); do
        port=$(sed -n "$script" "$log")
        if [[ -n $port ]]; then
            echo "$port"
            return 0
        fi
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    echo "tests/run: a server did not start; ${log##*/} says:" >&2
    cat "$log" >&2
    return 1
}
