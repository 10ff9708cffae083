// Decide who serves a request for a file while access is on. The web processes check signatures in the same way
// (shared/accounts/signed_urls.py). `signed_url_keys` maps the ids of keys to keys; nginx has loaded it (write_access.sh).
import crypto from 'crypto';

// Other forms of the same query, for example percent-encoded ones, are left to the web processes.
const SIGNED = /^(\/uploads\/[0-9a-f]{36})[./][a-z_.]+\?signature=([0-9a-f]{64})&expires=([1-9][0-9]{0,11})$/;
// Media types of which a web process can choose HTML (web/http/responses.py): also every type, if JSON is wanted less.
const PAGE = /text\/|application\/.*\*\/\*|\*\/\*.*application\//i;
const SESSION = /(^|;)\s*(__Host-)?shelfsight_session=/;

// Return `file` if nginx may serve the file, `web` if a web process must decide, and `refused` if the request has no credentials at
// all. A signature that does not match is left to the web processes, because they can have read newer keys.
// A web process decides nevertheless about a request that nginx cannot serve in the same way (shelfsight.conf).
function access(r) {
    const headers = r.headersIn;
    if (headers.Authorization !== undefined) {
        return 'web';
    }
    const signed = SIGNED.exec(r.variables.request_uri);
    if (signed !== null && Number(signed[3]) > Date.now() / 1000 && matches(signed[1], signed[2], signed[3])) {
        return 'file';
    }
    if (headers.Origin !== undefined || r.method === 'OPTIONS') {
        return 'web'; // Origin and OPTIONS: a page of another origin; see web/http/cors.py
    }
    // A person who opens the address in a browser gets a page to sign in.
    if (SESSION.test(headers.Cookie || '') || PAGE.test(headers.Accept || '')) {
        return 'web';
    }
    return r.variables.args ? 'web' : 'refused';
}

function matches(resource, signature, expires) {
    const given = Buffer.from(signature, 'hex');
    let matching = 0;
    for (const id in signed_url_keys) {
        const expected = crypto.createHmac('sha256', signed_url_keys[id]).update(resource + '\n' + expires).digest();
        matching |= isEqual(expected, given);
    }
    return matching === 1;
}

// Compare two signatures of 32 bytes. The time does not depend on their content.
function isEqual(one, other) {
    let difference = 0;
    for (let i = 0; i < 32; i += 4) {
        difference |= one.readInt32LE(i) ^ other.readInt32LE(i);
    }
    return difference === 0 ? 1 : 0;
}

export default { access };
