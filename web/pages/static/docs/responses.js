// Read a response, and describe it on the page.

import { element } from './elements.js';

/** @typedef {{bytes: Uint8Array<ArrayBuffer>, problem: string}} Received `problem` says why the body is incomplete; it is empty if the body is complete */

const MAX_BYTES = 8 * 1024 * 1024;
const MAX_TEXT_LENGTH = 20_000;
const IMAGE = /^image\/[\w.+-]+$/;
const TEXT = /^text\/|[/+](json|xml|javascript|x-ndjson|csv)$/;

/**
 * Read the body of a response up to a limit, so that a response that never ends does not fill the memory.
 * @param {Response} response
 * @returns {Promise<Received>}
 */
export async function readBody(response) {
  const reader = response.body?.getReader();
  /** @type {BlobPart[]} */
  const parts = [];
  let size = 0;
  let problem = '';
  try {
    for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) {
      parts.push(part.value);
      size += part.value.length;
      if (size > MAX_BYTES) {
        problem = `only the first ${size} bytes were read`;
        await reader?.cancel();
        break;
      }
    }
  } catch (error) {
    problem = error instanceof DOMException && error.name === 'AbortError' ? 'stopped before the end' : 'the connection was closed before the end';
  }
  return { bytes: new Uint8Array(await new Blob(parts).arrayBuffer()), problem };
}

/**
 * Return elements that show the headers and the body of a response.
 * @param {Response} response
 * @param {Received} received
 * @returns {Promise<Node[]>}
 */
export async function describeResponse(response, received) {
  const headers = [...response.headers].map(([name, value]) => `${name}: ${value}`);
  const list = element('details', {}, element('summary', {}, `${headers.length} response headers`), scrollable('Response headers', headers.join('\n')));
  return [list, ...(await describeBody(response, received))];
}

/**
 * @param {Response} response
 * @param {Received} received
 * @returns {Promise<Node[]>}
 */
async function describeBody(response, { bytes, problem }) {
  if (!bytes.length) return [];
  const type = (response.headers.get('Content-Type') ?? '').split(';')[0].trim().toLowerCase();
  if (IMAGE.test(type) && !problem) return [element('img', { src: await dataUrl(new Blob([bytes], { type })), alt: 'The image in the response' })];
  if (!TEXT.test(type)) return [element('p', { class: 'small' }, `The body is of the type ${type || 'unknown'} and is not shown.`)];
  const text = formatText(new TextDecoder().decode(bytes), type);
  const cut = text.length > MAX_TEXT_LENGTH ? [element('p', { class: 'small' }, `${text.length - MAX_TEXT_LENGTH} more characters are not shown.`)] : [];
  return [scrollable('Response body', text.slice(0, MAX_TEXT_LENGTH)), ...cut];
}

/**
 * @param {string} text
 * @param {string} type
 */
function formatText(text, type) {
  if (!type.endsWith('json')) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/**
 * Return preformatted text, which can be scrolled with the keyboard.
 * @param {string} label
 * @param {string} text
 */
export function scrollable(label, text) {
  return element('pre', { tabindex: '0', role: 'region', 'aria-label': label }, text);
}

/**
 * Return a data: URL, because the content security policy permits no other source of images that the page makes.
 * @param {Blob} blob
 * @returns {Promise<string>}
 */
function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener('load', () => resolve(String(reader.result)));
    reader.addEventListener('error', () => reject(reader.error));
    reader.readAsDataURL(blob);
  });
}
