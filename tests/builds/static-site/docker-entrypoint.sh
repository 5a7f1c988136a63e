#!/bin/sh
# What images of servers do: settings from variables, then the command in its own place.
set -e
if [ "$1" = serve ]; then
    sed -e "s|\${PORT}|$PORT|" -e "s|\${WEB_ROOT}|$WEB_ROOT|" /etc/web/templates/default.conf.template > /var/cache/web/default.conf
    shift
    set -- httpd -p "127.0.0.1:$PORT" -h "$WEB_ROOT" "$@"
fi
exec "$@"
