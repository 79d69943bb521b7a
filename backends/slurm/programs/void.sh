# Gives up the marker whose directory is $1: what has not begun under it begins nothing any more.
# Answers: verdict US text. Verdicts: unbegun (that is proof), begun (or nobody can tell), broken.
dir=$1
if [ -d "$dir" ]; then
    if ! said=$({ umask 077 && : >"$dir/void" && sync "$dir/void"; } 2>&1); then
        printf '%s' "broken$US$said"
        exit 0
    fi
    verdict=unbegun
    for claim in "$dir"/claim "$dir"/claim.*; do
        [ ! -e "$claim" ] || verdict=begun
    done
else
    verdict=begun
fi
printf '%s' "$verdict$US"
