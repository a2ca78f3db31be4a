# Runs an engine that must not outlive the process that started it: guard.sh SIGNAL FOLDER COMMAND...
#
# Standard input is a pipe. The starting process holds its other end and never writes to it, so the pipe closes when
# that process dies in any way. The guard then ends the engine by SIGNAL and removes FOLDER. Otherwise the guard ends
# with the engine, and with its status. The first line of standard output is the engine's process id.
unset GUARD
ending=$1 folder=$2
shift 2
exec 3<&0

"$@" 3<&- </dev/null >>"$folder/log" 2>&1 &
engine=$!
echo "$engine"

children() { grep -ls "^PPid:[[:space:]]*$engine\$" /proc/[0-9]*/status | cut -d/ -f3; }

(
    if read -r _ <&3; then exit; fi
    trap '' TERM
    # A suspended process acts on no signal but SIGKILL.
    kill -CONT $(children) "$engine"
    kill "-$ending" "$engine"
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
        kill -0 "$engine" || break
        sleep 0.1
    done
    kill -KILL $(children) "$engine"
    rm -rf "$folder"
) &
watching=$!

wait "$engine"
status=$?
kill "$watching"
exit "$status"
