# Reload nginx when the keys of signed URLs or the certificate have changed. start.sh sources this file before nginx starts.
checksum_secrets() { cat /secrets/signed_url_keys.json /secrets/tls.pem 2> /dev/null | cksum; }

# $1: the process id of nginx. $2: the checksum before nginx has read the files.
reload_on_change() {
    known=$2
    while sleep 2 && kill -0 "$1" 2> /dev/null; do
        found=$(checksum_secrets)
        if [ "$found" != "$known" ]; then
            known=$found
            kill -HUP "$1"
        fi
    done
}
