# Write the limits on the sizes and the number of bodies. start.sh sources this file.
bytes=${LIMITS_MAX_BODY_BYTES:-67108864}
picture=$((${INSPECT_MAX_SOURCE_BYTES:-4194304} * 2)) # bodies that are a little too large reach the web processes, which return a more detailed error than nginx
tags=1048576
annotations=4194304
receipt=$((65536 + 1024 * ${LIMITS_MAX_IMAGES:-1000}))
UPLOAD_BUFFER=${UPLOAD_BUFFER:-1g}
case "$UPLOAD_BUFFER" in
    *[gG]) buffer=$((${UPLOAD_BUFFER%[gG]} * 1024)) ;;
    *[mM]) buffer=${UPLOAD_BUFFER%[mM]} ;;
    *)
        echo "error: UPLOAD_BUFFER=$UPLOAD_BUFFER is not a size in megabytes or gigabytes. Set, for example, UPLOAD_BUFFER=512m or UPLOAD_BUFFER=1g." >&2
        exit 1
        ;;
esac
# Places for bodies (see body_places.conf), in megabytes. The places of all sizes together fit into the buffer.
larger=$((bytes > picture ? bytes : picture))
larger=$((larger > annotations ? larger : annotations))
largest=$(((larger > receipt ? larger : receipt) / 1048576 + 1))
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
echo "client_max_body_size $tags;" > /tmp/nginx/tags.conf
echo "client_max_body_size $annotations;" > /tmp/nginx/annotations.conf
echo "client_max_body_size $receipt;" > /tmp/nginx/receipt.conf
