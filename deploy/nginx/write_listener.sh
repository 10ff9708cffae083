# Write the part of the configuration that depends on whether clients use HTTPS. start.sh sources this file.
# The health check of the container uses the port 8081 without HTTPS.
if [ "${TLS_CERTIFICATE:-/dev/null}" = /dev/null ]; then
    tls=
    if [ "$access" = on ]; then
        echo "warning: TLS_CERTIFICATE is not set, so nginx speaks HTTP. Passwords and keys need HTTPS on the way to the clients; set it, or use a proxy in front (TRUSTED_PROXY)." >&2
    fi
else
    tls=" ssl"
    if [ ! -r /secrets/tls.pem ]; then
        echo "error: /secrets/tls.pem is missing, so nginx cannot use HTTPS. Run: docker compose run --rm make-secrets" >&2
        exit 1
    fi
fi
cat > /tmp/nginx/listen.conf <<END
listen 8080 default_server reuseport$tls; # without reuseport, and with a second socket to listen on, one worker process can get most connections
listen 127.0.0.1:8081;
END
if [ -n "$tls" ]; then
    cat >> /tmp/nginx/listen.conf <<END
ssl_certificate /secrets/tls.pem; # deploy/make_secrets.py writes it: the certificates and the key
ssl_certificate_key /secrets/tls.pem;
ssl_protocols TLSv1.2 TLSv1.3;
ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305;
ssl_prefer_server_ciphers off;
ssl_session_cache shared:tls:10m;
ssl_session_timeout 1d;
ssl_session_tickets off;
error_page 497 =308 https://\$authority\$request_uri; # a request without HTTPS
END
fi
