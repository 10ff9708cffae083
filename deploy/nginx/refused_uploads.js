// Answer an upload that a web process has refused before nginx receives its body (upload_check.conf). The web process has sent its
// response in a header, because nginx drops the body of the response to the check. Filters replace nginx's own error page by it. A
// location for the error would ask the client for the body first, if the client waits for `100 Continue`.
function sendHeaders(r) {
    const refusal = JSON.parse(r.variables.refusal);
    r.status = refusal.status;
    for (const name in refusal.headers) {
        r.headersOut[name] = refusal.headers[name];
    }
    r.headersOut['Content-Length'] = String(Buffer.from(refusal.body).length);
}

function sendBody(r, data, flags) {
    if (flags.last) {
        r.sendBuffer(JSON.parse(r.variables.refusal).body, flags);
    }
}

export default { sendHeaders, sendBody };
