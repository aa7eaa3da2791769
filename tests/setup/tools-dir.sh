# Sourced: where the servers that the tests start are kept, so that they are fetched once.
# A PostgreSQL server does not run as root, and its account cannot look into root's home: root's cache lies elsewhere.
if [ -z "${PACHARC_TOOLS:-}" ]; then
	if [ "$(id -u)" = 0 ]; then
		PACHARC_TOOLS=/var/cache/pacharc-tests
	else
		PACHARC_TOOLS=$HOME/.cache/pacharc-tests
	fi
fi
