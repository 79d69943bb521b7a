# What the jobs themselves left in their marker directories, which standard input lists.
# Answers lines: marker US claim|exit|closed US task (empty: not an array) US owner|exit code|seconds US when it was
# written.
shopt -s nullglob
while read_word dir; do
    for file in "$dir"/claim/owner "$dir"/claim.*/owner "$dir"/exit "$dir"/exit.* "$dir"/closed; do
        kind=${file#"$dir/"} value=
        kind=${kind%/owner}
        [[ $kind =~ ^(claim|exit|closed)(\.([0-9]+))?$ && -e $file ]] || continue
        read -r value <"$file"
        written=
        [ "${BASH_REMATCH[1]}" = claim ] || written=$(stat -c %Y -- "$file")
        printf '%s\n' "${dir##*/}$US${BASH_REMATCH[1]}$US${BASH_REMATCH[3]}$US$value$US$written"
    done
done
