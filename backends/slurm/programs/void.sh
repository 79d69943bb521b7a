# Gives up the marker whose directory is $1: what has not begun under it begins nothing any more.
# Answers: verdict US text. Verdicts: unbegun (that is proof), begun (or nobody can tell), broken.
dir=$1
if [ -d "$dir" ]; then
    if ! said=$({ umask 077 && : >"$dir/void" && sync "$dir/void"; } 2>&1); then
        printf '%s' "broken$US$said"
        exit 0
    fi
    verdict=unbegun
    for owner in "$dir"/claim/owner "$dir"/claim.*/owner; do
        [ ! -e "$owner" ] || verdict=begun
    done
    [ ! -e "$dir/closed" ] || verdict=unbegun # it waited at its gate in vain
else
    verdict=begun
fi
printf '%s' "$verdict$US"
