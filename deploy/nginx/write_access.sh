# Write the part of the configuration that depends on whether requests need credentials (see .env.example). start.sh sources this file.
case "${SHELFSIGHT_ENV:-development}" in
    development) access=${ACCESS:-off} ;;
    production) access=${ACCESS:-on} ;;
    *)
        echo "error: SHELFSIGHT_ENV=$SHELFSIGHT_ENV is neither development nor production." >&2
        exit 1
        ;;
esac
case "$access" in
    on) ;;
    off)
        if [ "${SHELFSIGHT_ENV:-development}" = production ]; then
            echo "error: ACCESS=off is not allowed with SHELFSIGHT_ENV=production, in which every request needs credentials. Unset ACCESS, or set SHELFSIGHT_ENV=development." >&2
            exit 1
        fi
        case "${LISTEN:-127.0.0.1:5000}" in
            127.* | localhost:* | "[::1]:"*) ;;
            *)
                echo "error: LISTEN=$LISTEN is not a loopback address, and access is open, so everybody who reaches it could do everything. Set SHELFSIGHT_ENV=production or ACCESS=on, so that requests need credentials, or LISTEN=127.0.0.1:5000." >&2
                exit 1
                ;;
        esac
        ;;
    *)
        echo "error: ACCESS=$ACCESS is neither on nor off." >&2
        exit 1
        ;;
esac
public=${PUBLIC_URL#*://}
public=${public%%/*}
if [ "$access" = on ]; then
    keys=/secrets/signed_url_keys.json # deploy/make_secrets.py writes it
    if [ ! -r "$keys" ]; then
        echo "error: $keys is missing, so nginx cannot check the URLs of files. Run: docker compose run --rm make-secrets" >&2
        exit 1
    fi
    echo "load_module /usr/lib/nginx/modules/ngx_http_js_module.so;" > /tmp/nginx/modules.conf
    cat > /tmp/nginx/access.conf <<END
js_path /etc/shelfsight;
js_import signed_urls.js;
js_import refused_uploads.js;
js_preload_object signed_url_keys from $keys;
js_set \$file_access signed_urls.access;
map \$host \$is_public_host { default 1; }
END
    echo "include upload_check.conf;" > /tmp/nginx/upload_check.conf
else
    : > /tmp/nginx/modules.conf
    cat > /tmp/nginx/access.conf <<END
map \$host \$file_access { default file; }
map \$host \$is_public_host { default 0; "${public%:*}" 1; } # the web processes refuse other host names
END
    : > /tmp/nginx/upload_check.conf
fi
