# Runs an engine that must not outlive who started it: guard.sh SIGNAL FOLDER COMMAND...
#
# Standard input is a pipe whose other end the starter holds and never writes to: when it closes, the starter is gone,
# however it went. Then the engine is ended by SIGNAL, and its FOLDER removed. Otherwise this ends with the engine, and
# with its status. The first line of standard output is the engine's process id.
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
    # What is stopped hears nothing.
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
