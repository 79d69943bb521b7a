# Hands over to a program in Python, whose text is $1; its arguments follow. Red Hat's systems may have Python under
# another name only.
trap '' HUP PIPE
exec "$(command -v python3 || echo /usr/libexec/platform-python)" -I -c "$@"
