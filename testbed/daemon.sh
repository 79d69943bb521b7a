# Start, signal or look at one daemon of a machine; run inside it as: sh -c THIS daemon NAME ACTION...
# The daemon runs in the foreground of a session of its own, and its process id lies in /run/NAME.pid.
set -eu
name=$1 action=$2
pid_file=/run/$name.pid

# A dead process that nobody has reaped yet still has a folder in /proc, so look at its state.
alive() {
    test -s "$pid_file" && grep -q '^State:[[:space:]][^ZX]' "/proc/$(cat "$pid_file")/status" 2>/dev/null
}

# start USER LOG COMMAND READY: start it unless it runs, then wait, at most 60 s, until READY succeeds.
start() {
    user=$1 log=$2 command=$3 ready=$4
    if ! alive; then
        if [ "$user" = root ]; then drop=; else drop="setpriv --reuid=$user --regid=$(id -g "$user") --init-groups --"; fi
        rm -f "$pid_file"
        setsid sh -c "echo \$\$ > $pid_file; exec $drop $command" < /dev/null >> "$log" 2>&1 &
        until test -s "$pid_file"; do sleep 0.01; done
    fi
    for _ in $(seq 1200); do
        if sh -c "$ready" > /dev/null 2>&1; then return; fi
        alive || break
        sleep 0.05
    done
    echo "$name does not answer; the end of $log:" >&2
    tail -n 20 "$log" >&2
    return 1
}

# signal NAME: send it and wait, at most 20 s, until the daemon has ended.
signal() {
    alive || return 0
    kill "-$1" "$(cat "$pid_file")"
    for _ in $(seq 400); do
        alive || return 0
        sleep 0.05
    done
    echo "$name goes on running after SIG$1" >&2
    return 1
}

shift 2
"$action" "$@"
