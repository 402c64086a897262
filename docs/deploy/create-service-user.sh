#!/bin/sh
# The image of PostgreSQL runs this once, when it creates the database: it creates the user of the service, which may
# record events but not change them.
set -eu
psql --quiet --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" \
    --set=password="$LEDGER_APP_PASSWORD" <<'SQL'
CREATE ROLE ledger_service NOLOGIN;
CREATE ROLE app LOGIN PASSWORD :'password' IN ROLE ledger_service;
SQL
