#!/bin/sh
# Write the part of the nginx configuration that depends on environment variables, then start nginx.
set -eu
mkdir -p /tmp/nginx
bytes=${LIMITS_MAX_BODY_BYTES:-67108864}
picture=$((${INSPECT_MAX_SOURCE_BYTES:-4194304} * 2)) # bodies that are a little too large reach the web processes, which return a more detailed error than nginx
case "${LISTEN:-127.0.0.1:5000}" in
    127.* | localhost:* | "[::1]:"*) ;;
    *)
        echo "error: LISTEN=$LISTEN is not a loopback address. The service has no accounts yet, so it must not be reachable from other machines. Set LISTEN=127.0.0.1:5000." >&2
        exit 1
        ;;
esac
public=${PUBLIC_URL#*://}
public=${public%%/*}
cat > /tmp/nginx/installation.conf <<END
map \$request_uri \$most_bytes { default 65536; "~^/upload_image_batch(\?|\$)" $bytes; "~^/img(\?|\$)" $((picture / 2)); }
set_real_ip_from ${TRUSTED_PROXY:-127.0.0.1};
map \$host \$is_public_host { default 0; "${public%:*}" 1; }
END
case "${UPLOAD_BUFFER:-1g}" in
    *[gG]) buffer=$((${UPLOAD_BUFFER%[gG]} * 1024)) ;;
    *[mM]) buffer=${UPLOAD_BUFFER%[mM]} ;;
    *)
        echo "error: UPLOAD_BUFFER=$UPLOAD_BUFFER is not a size in megabytes or gigabytes. Set, for example, UPLOAD_BUFFER=512m or UPLOAD_BUFFER=1g." >&2
        exit 1
        ;;
esac
largest=$((bytes / 1048576 + 1))
large=$((buffer * 5 / 8 / largest)) # large bodies, up to the maximum size, can take five eighths of the buffer
medium=$((buffer / 4 / 10))         # medium bodies, up to 10 MB, can take a quarter of the buffer
cat > /tmp/nginx/upload.conf <<END
client_max_body_size $bytes;
limit_conn large_uploads $((large > 1 ? large : 1));
limit_conn medium_uploads $((medium > 1 ? medium : 1));
limit_conn upload_clients ${UPLOADS_PER_CLIENT:-16};
END
echo "client_max_body_size $picture;" > /tmp/nginx/picture.conf
cores=$(nproc)
workers=$((cores < 4 ? cores : 4)) # four workers are enough to saturate any disk; with `auto`, nginx would start one worker for each core, even on a large machine
exec nginx -c /etc/shelfsight/shelfsight.conf -g "daemon off; worker_processes $workers;"
