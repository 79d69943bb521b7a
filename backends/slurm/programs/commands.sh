# Runs the commands that standard input lists, each for at most $1 seconds, standard error in one stream with the
# output when $2 is "both". After the output of each comes \x1e, its exit status, and \x1e.
export SLURM_TIME_FORMAT=%s SLURM_BITSTR_LEN=0
while read_words command; do
    if [ "$2" = both ]; then
        timeout "$1" "${command[@]}" </dev/null 2>&1
    else
        timeout "$1" "${command[@]}" </dev/null
    fi
    printf '\x1e%d\x1e' "$?"
done
