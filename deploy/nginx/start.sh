#!/bin/sh
# What depends on the installation, written from its environment; then nginx itself.
set -eu
mkdir -p /tmp/nginx
bytes=${LIMITS_MAX_BODY_BYTES:-67108864}
cat > /tmp/nginx/installation.conf <<END
client_max_body_size $bytes;
map \$host \$max_body_bytes { default $bytes; }
set_real_ip_from ${TRUSTED_PROXY:-127.0.0.1};
map \$host \$is_public_host { default 0; "${PUBLIC_HOST:-localhost}" 1; }
END
exec nginx -c /etc/nginx/shelfsight.conf -g 'daemon off;'
