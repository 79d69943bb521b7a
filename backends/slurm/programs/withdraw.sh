# Keeps what has not begun under the marker whose directory is $1 from ever beginning; what has begun is left alone. The
# claim that a job makes first, and can make only where there is none, is made here instead, without an owner.
# Answers: verdict US text. Verdicts: unbegun (that is proof), begun (or nobody can tell), broken.
dir=$1
answer() {
    printf '%s' "$1$US$2"
    exit 0
}
claim() {
    local mine
    umask 077
    mine=$(mktemp -d "$dir/claiming.XXXXXX") && : >"$mine/withdrawn" && sync "$mine/withdrawn" || return
    mv -T "$mine" "$dir/claim" || rm -rf "$mine" # the job was faster
}
[ -d "$dir" ] || answer begun ''
[ ! -e "$dir/closed" ] || answer unbegun '' # it waited at its gate in vain
if [ ! -e "$dir/claim" ]; then
    said=$(claim 2>&1) || answer broken "$said"
fi
[ ! -e "$dir/claim/withdrawn" ] || answer unbegun ''
answer begun ''
