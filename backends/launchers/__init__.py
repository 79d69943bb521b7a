"""How each runtime starts a container: lines of ``tapisjob.sh``, which ``backends/container.py`` puts together."""
