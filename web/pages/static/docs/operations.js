// The forms of the API page with which a user tries operations.

import { bodyEditor, field } from './bodies.js';
import { currentToken, hasCredentials } from './credentials.js';
import { element } from './elements.js';
import { describeResponse, readBody, scrollable } from './responses.js';
import { describe, resolve } from './schemas.js';

/** @typedef {{name: string, in: string, required?: boolean, schema: import('./schemas.js').Schema}} Parameter */
/** @typedef {import('./bodies.js').Body & {method: string, path: string, isPublic: boolean}} Call */

/** @type {Promise<any> | null} */
let apiDocument = null;

/**
 * Return the OpenAPI document. If it could not be loaded, the next call tries again.
 * @returns {Promise<any>}
 */
function loadDocument() {
  apiDocument ??= fetch('/openapi.json', { credentials: 'omit' })
    .then((response) => (response.ok ? response.json() : Promise.reject(new Error())))
    .catch(() => {
      apiDocument = null;
      throw new Error('The OpenAPI document could not be loaded. Close and open “Try it” to try again.');
    });
  return apiDocument;
}

/**
 * Fill the part “Try it” of an operation when it is opened.
 * @param {HTMLDetailsElement} attempt
 */
async function fill(attempt) {
  const place = /** @type {HTMLElement} */ (attempt.querySelector('.form'));
  const { path = '', method = '' } = attempt.dataset;
  if (!attempt.open || place.querySelector('form')) return;
  try {
    place.replaceChildren(operationForm(await loadDocument(), path, method));
  } catch (error) {
    place.replaceChildren(error instanceof Error ? error.message : String(error));
  }
}

/**
 * @param {any} api
 * @param {string} path
 * @param {string} method
 * @returns {HTMLFormElement}
 */
function operationForm(api, path, method) {
  const operation = api.paths[path][method];
  const id = `try-${operation.operationId}`;
  const parameters = /** @type {Parameter[]} */ (operation.parameters ?? []).map((parameter) => parameterField(api, parameter, id));
  const editor = operation.requestBody && bodyEditor(api, operation.requestBody.content, id);
  const curl = scrollable('The request as a curl command', '');
  const stop = element('button', { type: 'button', class: 'plain', hidden: true }, 'Stop');
  const status = element('p', { role: 'status' });
  const result = element('div', { class: 'fields' });
  const buttons = element('p', {}, element('button', {}, `Send ${method.toUpperCase()}`), ' ', stop);
  const form = element('form', { class: 'fields' }, ...parameters.map(({ node }) => node), ...(editor?.nodes ?? []), curl, buttons, status, result);

  /** @returns {Call} */
  const read = () => {
    const { headers, body, curl: bodyArguments } = editor?.read() ?? { headers: [], body: null, curl: [] };
    const given = parameters.filter(({ parameter, value }) => parameter.in === 'header' && value());
    return {
      method: method.toUpperCase(),
      path: fillPath(path, parameters),
      isPublic: operation.security.length === 0,
      headers: [...given.map(({ parameter, value }) => /** @type {[string, string]} */ ([parameter.name, value()])), ...headers],
      body,
      curl: bodyArguments,
    };
  };
  const showCurl = () => { curl.textContent = curlLine(read()); };
  form.addEventListener('input', showCurl);
  form.addEventListener('change', showCurl);
  document.addEventListener('credentials', showCurl);
  showCurl();

  /** @type {AbortController | null} */
  let running = null;
  stop.addEventListener('click', () => running?.abort());
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    showCurl(); // a browser that fills in a field need not tell
    running?.abort();
    const own = running = new AbortController();
    stop.hidden = false;
    status.textContent = 'Waiting for the service.';
    result.replaceChildren();
    const outcome = await send(read(), own.signal);
    if (running !== own) return; // a later call is running
    stop.hidden = true;
    status.textContent = outcome.summary;
    result.replaceChildren(...outcome.nodes);
  });
  return form;
}

/**
 * @param {any} api
 * @param {Parameter} parameter
 * @param {string} id
 */
function parameterField(api, parameter, id) {
  const schema = resolve(api, parameter.schema);
  const options = schema.enum ?? (schema.type === 'boolean' ? [true, false] : null);
  const attributes = { id: `${id}-${parameter.in}-${parameter.name}`, required: parameter.required ?? false };
  const control = options
    ? element('select', attributes, element('option', { value: '' }, 'not sent'), ...options.map((/** @type {any} */ option) => element('option', {}, String(option))))
    : element('input', { ...attributes, type: 'text', autocomplete: 'off', spellcheck: 'false' });
  const node = field(control, parameter.name, parameter.required ? `${parameter.in}, required` : parameter.in, describe(schema));
  return { parameter, node, value: () => control.value };
}

/**
 * Return the path and the query of a call.
 * @param {string} path
 * @param {{parameter: Parameter, value: () => string}[]} parameters
 */
function fillPath(path, parameters) {
  const filled = path.replaceAll(/\{([^{}]*)\}/g, (_, name) => encodeURIComponent(parameters.find(({ parameter }) => parameter.in === 'path' && parameter.name === name)?.value() ?? ''));
  const query = parameters.filter(({ parameter, value }) => parameter.in === 'query' && value());
  return query.length ? `${filled}?${query.map(({ parameter, value }) => `${encodeURIComponent(parameter.name)}=${encodeURIComponent(value())}`).join('&')}` : filled;
}

/**
 * Return a call as a command for a shell, with a variable in place of the credentials.
 * @param {Call} call
 */
function curlLine(call) {
  const words = [
    ...(call.method === 'GET' ? [] : ['-X', call.method]),
    location.origin + call.path,
    ...call.headers.flatMap(([name, value]) => ['-H', `${name}: ${value}`]),
    ...call.curl,
  ];
  const quoted = words.map((word) => (/^[\w./:=@-]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`));
  return ['curl', ...(hasCredentials() && !call.isPublic ? ['-H "Authorization: Bearer $TOKEN"'] : []), ...quoted].join(' ');
}

/**
 * Send a call.
 * @param {Call} call
 * @param {AbortSignal} signal
 * @returns {Promise<{summary: string, nodes: Node[]}>}
 */
async function send(call, signal) {
  try {
    const headers = new Headers(call.headers);
    const token = call.isPublic ? null : await currentToken();
    if (token) headers.set('Authorization', `Bearer ${token}`);
    const started = performance.now();
    const response = await fetch(call.path, { method: call.method, headers, body: call.body, signal, cache: 'no-store', credentials: 'omit' });
    const received = await readBody(response);
    const words = [`${response.status} ${response.statusText}`.trim(), `${Math.round(performance.now() - started)} ms`, `${received.bytes.length} bytes`];
    const nodes = await describeResponse(response, received);
    if (response.status === 401 && !token) nodes.unshift(element('p', {}, element('a', { href: '#credentials' }, 'Sign in or enter an API key'), ', then send the request again.'));
    return { summary: [...words, ...(received.problem ? [received.problem] : [])].join(' · '), nodes };
  } catch (error) {
    if (signal.aborted) return { summary: 'Stopped.', nodes: [] };
    const detail = error instanceof Error ? error.message : String(error);
    return { summary: `The request failed: ${detail}`, nodes: [] };
  }
}

for (const attempt of /** @type {NodeListOf<HTMLDetailsElement>} */ (document.querySelectorAll('details.try'))) {
  attempt.hidden = false;
  attempt.addEventListener('toggle', () => fill(attempt));
}
