#!/bin/sh
# Write the part of the nginx configuration that depends on environment variables, then start nginx.
set -eu
here=$(dirname "$0")
mkdir -p /tmp/nginx
. "$here/write_body_places.sh"
. "$here/write_access.sh"
. "$here/write_listener.sh"
. "$here/reload_on_change.sh"
origins=$(printf %s "${CORS_ORIGINS:-}" | tr -d '[][:space:]')
cat > /tmp/nginx/installation.conf <<END
map \$host \$cors_vary { default "${origins:+Origin}"; } # caches keep the responses to pages of other origins apart, as in web/http/cors.py
map \$request_uri \$most_bytes {
    default 65536;
    "~^/(upload_image_batch|images)(\?|\$)" $bytes;
    "~^/img(\?|\$)" $((picture / 2));
    "~^/images/tags(\?|\$)" $tags;
    "~^/images/[0-9a-f]{36}/annotations(\?|\$)" $annotations;
    "~^/receipts/verify(\?|\$)" $receipt;
}
set_real_ip_from ${TRUSTED_PROXY:-127.0.0.1};
END
rm -f /tmp/nginx/unbuffered.sock /tmp/nginx/errors # an nginx that is killed, or that stops gracefully, leaves them
cores=$(nproc)
workers=$((cores < 4 ? cores : 4)) # four workers are enough to saturate any disk; with `auto`, nginx would start one worker for each core, even on a large machine
if [ "$access" = on ]; then
    # nginx writes whole URLs to its error log. Their queries are removed, because they can contain signatures.
    mkfifo -m 600 /tmp/nginx/errors
    sed -u 's/?[^ "]*/?.../g' < /tmp/nginx/errors >&2 &
    reload_on_change $$ "$(checksum_secrets)" &
    exec 2> /tmp/nginx/errors
fi
exec nginx -c /etc/shelfsight/shelfsight.conf -g "daemon off; worker_processes $workers;"
