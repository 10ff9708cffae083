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
# Places for bodies (see shelfsight.conf), in megabytes. The places of all sizes together fit into the buffer.
largest=$(((bytes > picture ? bytes : picture) / 1048576 + 1))
if [ "$buffer" -lt $((largest + 11)) ]; then
    echo "error: UPLOAD_BUFFER=$UPLOAD_BUFFER is too small for a body of each size. Set at least UPLOAD_BUFFER=$((largest + 11))m." >&2
    exit 1
fi
at_least_one() { echo $(($1 > 1 ? $1 : 1)); }
lesser() { echo $(($1 < $2 ? $1 : $2)); }
large=$(at_least_one $(($(lesser $((buffer * 5 / 8)) $((buffer - 11))) / largest))) # large bodies, up to the maximum size, take about five eighths of the buffer
rest=$((buffer - large * largest))
medium=$(at_least_one $(($(lesser $((buffer / 4)) $((rest - 1))) / 10))) # medium bodies, up to 10 MB, take about a quarter of it
small=$((rest - medium * 10))                                            # small bodies, up to 1 MB, take the rest
# More bodies than threads can be passed on without being buffered, because the web processes end slow bodies only when requests wait.
unbuffered=$((2 * ${WEB_REPLICAS:-2} * ${WEB_WORKERS:-2} * ${WEB_THREADS:-16}))
cat > /tmp/nginx/places.conf <<END
limit_conn large_uploads $large;
limit_conn medium_uploads $medium;
limit_conn small_uploads $small;
limit_conn large_upload_clients $(at_least_one $((large / 3)));
limit_conn medium_upload_clients $(at_least_one $((medium / 3)));
limit_conn upload_clients ${UPLOADS_PER_CLIENT:-16};
END
cat > /tmp/nginx/unbuffered_places.conf <<END
limit_conn unbuffered_uploads $unbuffered;
limit_conn unbuffered_upload_clients ${UPLOADS_PER_CLIENT:-16};
END
echo "client_max_body_size $bytes;" > /tmp/nginx/upload.conf
echo "client_max_body_size $picture;" > /tmp/nginx/picture.conf
rm -f /tmp/nginx/unbuffered.sock # an nginx that is killed, or that stops gracefully, leaves it
cores=$(nproc)
workers=$((cores < 4 ? cores : 4)) # four workers are enough to saturate any disk; with `auto`, nginx would start one worker for each core, even on a large machine
exec nginx -c /etc/shelfsight/shelfsight.conf -g "daemon off; worker_processes $workers;"
