// Editors of request bodies: JSON, forms, and files.

import { element } from './elements.js';
import { describe, example, resolve } from './schemas.js';

/** @typedef {import('./schemas.js').Schema} Schema */
/** @typedef {{headers: [string, string][], body: BodyInit | null, curl: string[]}} Body `curl` has the arguments of curl for the body */
/** @typedef {{nodes: Node[], read: () => Body}} Editor */
/** @typedef {{name: string, control: HTMLInputElement | HTMLTextAreaElement}} Field */

const MULTIPART = 'multipart/form-data';
const URL_ENCODED = 'application/x-www-form-urlencoded';
/** @type {Body} */
const NO_BODY = { headers: [], body: null, curl: [] };

/**
 * Create the editor of a request body. If the body can have several media types, the user chooses one.
 * @param {Record<string, any>} api
 * @param {Record<string, {schema: Schema}>} content the schemas by media type
 * @param {string} id prefix of the ids of the elements
 * @returns {Editor}
 */
export function bodyEditor(api, content, id) {
  const names = Object.keys(content);
  const choice = element('select', { id: `${id}-media` }, ...names.map((name) => element('option', {}, name)));
  const place = element('div', { class: 'fields' });
  let editor = editorOf(api, names[0], content[names[0]].schema, id);
  place.replaceChildren(...editor.nodes);
  choice.addEventListener('change', () => {
    editor = editorOf(api, choice.value, content[choice.value].schema, id);
    place.replaceChildren(...editor.nodes);
  });
  return { nodes: [field(choice, 'Body', 'media type', ''), place], read: () => editor.read() };
}

/**
 * Return a control with its label and its hint.
 * @param {HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement} control has an id
 * @param {string} name
 * @param {string} kind
 * @param {string} hint
 * @returns {HTMLElement}
 */
export function field(control, name, kind, hint) {
  const label = element('label', { for: control.id }, element('code', {}, name), ' ', element('span', { class: 'small' }, kind));
  if (!hint) return element('div', { class: 'field' }, label, control);
  control.setAttribute('aria-describedby', `${control.id}-hint`);
  return element('div', { class: 'field' }, label, control, element('div', { class: 'small', id: `${control.id}-hint` }, hint));
}

/**
 * @param {Record<string, any>} api
 * @param {string} media
 * @param {Schema} schema
 * @param {string} id
 * @returns {Editor}
 */
function editorOf(api, media, schema, id) {
  if (media === MULTIPART || media === URL_ENCODED) return formEditor(api, media, resolve(api, schema), id);
  return media.endsWith('json') ? jsonEditor(api, media, schema, id) : fileEditor(media, id);
}

/**
 * @param {Record<string, any>} api
 * @param {string} media
 * @param {Schema} schema
 * @param {string} id
 * @returns {Editor}
 */
function jsonEditor(api, media, schema, id) {
  const area = textArea(`${id}-json`, JSON.stringify(example(api, schema), null, 2));
  const read = () => (area.value.trim() ? { headers: /** @type {[string, string][]} */ ([['Content-Type', media]]), body: area.value, curl: ['--data-raw', area.value] } : NO_BODY);
  return { nodes: [field(area, 'Body', 'JSON', '')], read };
}

/**
 * @param {string} media
 * @param {string} id
 * @returns {Editor}
 */
function fileEditor(media, id) {
  const input = element('input', { id: `${id}-file`, type: 'file', accept: media.startsWith('image/') && media });
  const read = () => {
    const file = input.files?.[0];
    if (!file) return NO_BODY;
    const type = media.includes('*') ? file.type || 'application/octet-stream' : media;
    return { headers: /** @type {[string, string][]} */ ([['Content-Type', type]]), body: file, curl: ['--data-binary', `@${file.name}`] };
  };
  return { nodes: [field(input, 'Body', 'file', '')], read };
}

/**
 * @param {Record<string, any>} api
 * @param {string} media
 * @param {Schema} schema
 * @param {string} id
 * @returns {Editor}
 */
function formEditor(api, media, schema, id) {
  /** @type {Field[]} */
  const fields = [];
  const nodes = Object.entries(schema.properties ?? {}).map(([name, unresolved]) => {
    const property = resolve(api, unresolved);
    const isRequired = schema.required?.includes(name) ?? false;
    const control = formControl(api, property, `${id}-field-${name}`, isRequired);
    fields.push({ name, control });
    return field(control, name, isRequired ? 'form, required' : 'form', control.type === 'file' ? '' : describe(property));
  });
  return { nodes, read: () => (media === MULTIPART ? readMultipart(fields) : readUrlEncoded(fields)) };
}

/**
 * @param {Record<string, any>} api
 * @param {Schema} property
 * @param {string} id
 * @param {boolean} isRequired
 * @returns {HTMLInputElement | HTMLTextAreaElement}
 */
function formControl(api, property, id, isRequired) {
  const isList = property.type === 'array';
  if ((isList ? resolve(api, property.items) : property).format === 'binary') return element('input', { id, type: 'file', multiple: isList });
  if (property.contentMediaType === 'application/json') return textArea(id, String(example(api, property)));
  const input = element('input', { id, type: property.format === 'password' ? 'password' : 'text', autocomplete: 'off', required: isRequired });
  if ('const' in property) input.value = String(property.const);
  return input;
}

/**
 * @param {Field[]} fields
 * @returns {Body}
 */
function readMultipart(fields) {
  const body = new FormData();
  const curl = [];
  for (const { name, control } of fields) {
    if (control instanceof HTMLInputElement && control.files) {
      for (const file of control.files) {
        body.append(name, file);
        curl.push('-F', `${name}=@"${file.name.replaceAll(/["\\]/g, '\\$&')}"`);
      }
    } else if (control.value) {
      body.append(name, control.value);
      curl.push('--form-string', `${name}=${shown(control)}`);
    }
  }
  return { headers: [], body, curl }; // fetch adds the Content-Type with the boundary
}

/**
 * @param {Field[]} fields
 * @returns {Body}
 */
function readUrlEncoded(fields) {
  const filled = fields.filter(({ control }) => control.value);
  const body = new URLSearchParams(filled.map(({ name, control }) => [name, control.value]));
  return { headers: [], body, curl: filled.flatMap(({ name, control }) => ['--data-urlencode', `${name}=${shown(control)}`]) };
}

/** @param {HTMLInputElement | HTMLTextAreaElement} control */
function shown(control) {
  return control.type === 'password' ? '...' : control.value;
}

/**
 * @param {string} id
 * @param {string} text
 */
function textArea(id, text) {
  const area = element('textarea', { id, rows: String(Math.min(16, text.split('\n').length + 3)), spellcheck: 'false', autocomplete: 'off' });
  area.value = text;
  return area;
}
