# What became of the marker whose directory is $1. Standard input holds two commands that list its jobs, one line each.
#
# Answers: verdict US text. Verdicts: id, absent, busy, unanswered (which command, its words), broken, or jobs (their
# lines). Absent is proof: from then on no submission and no job under this marker runs anything.
export SLURM_TIME_FORMAT=%s
dir=$1
answer() {
    printf '%s' "$1$US$2"
    exit 0
}
owner() { # the job that claimed the marker, its tasks left out
    local file
    for file in "$dir"/claim/owner "$dir"/claim.*/owner; do
        [ ! -e "$file" ] || { read -r known <"$file" && printf '%s' "${known%%_*}" && return; }
    done
    return 1
}

read_words queued && read_words accounted || answer broken 'the question was cut off'
said=$({ umask 077 && mkdir -p "$dir" && : >>"$dir/lock"; } 2>&1) || answer broken "$said"
exec 9>>"$dir/lock"
flock -n 9 || answer busy "$?"
[ ! -e "$dir/id" ] || { read -r id <"$dir/id" && [ -n "$id" ] && answer id "$id"; }
id=$(owner) && answer id "$id"
[ ! -e "$dir/void" ] || answer absent ''

queue=$(timeout 30 "${queued[@]}" 2>&1 9>&-) || answer unanswered "squeue: $queue"
accounts=$(timeout 30 "${accounted[@]}" 2>&1 9>&-)
if [ $? != 0 ]; then
    # A site that keeps no accounts says so; that is an answer. What ran left its claim all the same.
    [[ $accounts == *'accounting storage is disabled'* ]] || answer unanswered "sacct: $accounts"
    accounts=
fi
[[ $queue$accounts != *"$US"* ]] || answer jobs "$queue"$'\n'"$accounts"

said=$({ umask 077 && : >"$dir/void" && sync "$dir/void"; } 2>&1) || answer broken "$said"
if id=$(owner); then # it began while we asked
    rm -f "$dir/void"
    answer id "$id"
fi
answer absent ''
