// The panel in which a user signs in or enters an API key.
//
// The credentials are kept in the memory of this page only, so they are lost when it is closed or reloaded.

import { byId, element } from './elements.js';

/** @typedef {{token: string, refresh: string | null, expires: number}} Credentials `refresh` is null for an API key; `expires` is in ms since 1970 */
/** @typedef {{username: string | null, role: string | null, scopes: string[], stores: string[], key: {id: string, name: string, expires_at: string | null} | null}} Me */

const REFRESH_EARLY_MS = 60_000;

/** @type {Credentials | null} */
let credentials = null;
/** @type {Promise<void> | null} */
let refreshing = null;

/** An error response of the service. */
class Refusal extends Error {
  /**
   * @param {number} status
   * @param {string} detail
   */
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** Return whether credentials are in use. */
export function hasCredentials() {
  return credentials !== null;
}

/**
 * Return the access token or the API key to send; null without credentials. A token that has expired, or does so within
 * a minute, is refreshed first.
 * @returns {Promise<string | null>}
 */
export async function currentToken() {
  if (credentials?.refresh && Date.now() > credentials.expires - REFRESH_EARLY_MS) {
    refreshing ??= refresh(credentials).finally(() => { refreshing = null; }); // a refresh token must not be used twice
    await refreshing;
  }
  return credentials?.token ?? null;
}

/** @param {Credentials} expiring */
async function refresh(expiring) {
  try {
    const refreshed = toCredentials(await requestJson('POST', '/refresh', { body: { refresh_token: expiring.refresh } }));
    if (credentials === expiring) credentials = refreshed; // else the user has signed out in the meantime
  } catch (error) {
    if (credentials === expiring && error instanceof Refusal && error.status === 401) show(null, 'The session has ended; sign in again.');
    throw error;
  }
}

/**
 * Use credentials if the service accepts them.
 * @param {Credentials} offered
 */
async function use(offered) {
  const me = /** @type {Me} */ (await requestJson('GET', '/me', { token: offered.token }));
  credentials = offered;
  show(me, me.key ? 'An API key is in use.' : `Signed in as ${me.username}.`);
}

async function signOut() {
  let message = 'Signed out.';
  if (!credentials?.refresh) return show(null, 'The API key is forgotten.');
  try {
    const token = await currentToken();
    await requestJson('POST', '/logout', { token, body: { refresh_token: credentials.refresh } });
  } catch (error) {
    message = `This page has forgotten the session, but the service has not ended it: ${reason(error)}`;
  }
  show(null, message);
}

/**
 * Send JSON and return the JSON of the response.
 * @param {string} method
 * @param {string} path
 * @param {{body?: object, token?: string | null}} options
 * @returns {Promise<any>}
 */
async function requestJson(method, path, { body, token }) {
  const headers = new Headers({ Accept: 'application/json' });
  if (body) headers.set('Content-Type', 'application/json');
  if (token) headers.set('Authorization', `Bearer ${token}`);
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: 'no-store', credentials: 'omit' }).catch(() => {
    throw new Error('The service does not respond.');
  });
  const data = await response.json().catch(() => null);
  if (!response.ok) throw new Refusal(response.status, data?.detail ?? `The service responded with status ${response.status}.`);
  return data;
}

/**
 * @param {{access_token: string, refresh_token: string, expires_in: number}} tokens
 * @returns {Credentials}
 */
function toCredentials(tokens) {
  return { token: tokens.access_token, refresh: tokens.refresh_token, expires: Date.now() + tokens.expires_in * 1000 };
}

/**
 * Show whose credentials are in use and what they permit. Without `me`, forget the credentials.
 * @param {Me | null} me
 * @param {string} message
 */
function show(me, message) {
  if (!me) credentials = null;
  byId('credentials-status').textContent = message;
  byId('sign-in').hidden = me !== null;
  byId('sign-out').hidden = me === null;
  byId('sign-out').textContent = me?.key ? 'Forget key' : 'Sign out';
  byId('rights').replaceChildren(...(me ? describe(me) : []).flatMap(([name, value]) => [element('dt', {}, name), element('dd', {}, value)]));
  for (const warning of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll('[data-lacking]'))) {
    warning.hidden = !me || (warning.dataset.of === 'keys' && !me.key) || me.scopes.includes(warning.dataset.lacking ?? '');
  }
  document.dispatchEvent(new Event('credentials')); // the forms of the operations show whether they send credentials
}

/**
 * @param {Me} me
 * @returns {[string, string][]}
 */
function describe(me) {
  const stores = me.stores.includes('*') ? 'all' : me.stores.join(', ') || 'none';
  return [
    ['user', me.username ?? 'none'],
    ['role', me.role ?? 'none'],
    ['scopes', me.scopes.join(', ') || 'none'],
    ['stores', stores],
    ...(me.key ? /** @type {[string, string][]} */ ([['key', `${me.key.name} (${me.key.id})`], ['expires', me.key.expires_at ?? 'never']]) : []),
  ];
}

/** @param {unknown} error */
function reason(error) {
  return error instanceof Error ? error.message : String(error);
}

/**
 * Run an action when a form is submitted, and show why it failed. Further submissions are ignored until it has ended.
 * @param {string} id
 * @param {(text: (name: string) => string) => Promise<void>} action `text` returns the text in a field
 */
function onSubmit(id, action) {
  const form = /** @type {HTMLFormElement} */ (byId(id));
  let isBusy = false;
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    if (isBusy) return;
    isBusy = true;
    byId('credentials-status').textContent = 'Waiting for the service.';
    const values = new FormData(form);
    try {
      await action((name) => String(values.get(name)));
      form.reset();
      byId('sign-out').focus();
    } catch (error) {
      byId('credentials-status').textContent = reason(error);
    } finally {
      isBusy = false;
    }
  });
}

onSubmit('password-form', async (text) => {
  const name = text('username').trim();
  const body = { [name.includes('@') ? 'email' : 'username']: name, password: text('password') };
  await use(toCredentials(await requestJson('POST', '/login', { body })));
});
onSubmit('key-form', async (text) => {
  const key = text('key').trim();
  if (!/^[\x21-\x7e]+$/.test(key)) throw new Error('This is not an API key: it has white space, or characters that are not ASCII.');
  await use({ token: key, refresh: null, expires: Infinity });
});
byId('sign-out').addEventListener('click', async () => {
  await signOut();
  byId('sign-in').querySelector('input')?.focus();
});
byId('credentials').hidden = false;
