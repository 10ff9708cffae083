// Describe JSON schemas in words, and make examples of what they permit.

/** @typedef {Record<string, any>} Schema */

const MAX_DEPTH = 12;

/**
 * Return the schema to which a reference in the document leads.
 * @param {Record<string, any>} api
 * @param {Schema} schema
 * @returns {Schema}
 */
export function resolve(api, schema) {
  if (typeof schema?.$ref !== 'string') return schema ?? {};
  return resolve(api, schema.$ref.slice(2).split('/').reduce((/** @type {any} */ part, step) => part?.[step], api));
}

/**
 * Describe the values that a parameter or a field can have. Those of an enumeration are left out, because they are options of a list.
 * @param {Schema} schema
 * @returns {string}
 */
export function describe(schema) {
  const variants = schema.anyOf ?? schema.oneOf;
  const type = schema.format ?? schema.type ?? 'any value';
  const words = schema.enum ? [] : [variants ? variants.map(describe).join(' or ') : type];
  if ('const' in schema) words.push(`always ${JSON.stringify(schema.const)}`);
  if (schema.minimum !== undefined && schema.maximum !== undefined) words.push(`${schema.minimum} to ${schema.maximum}`);
  else if (schema.minimum !== undefined) words.push(`at least ${schema.minimum}`);
  else if (schema.maximum !== undefined) words.push(`at most ${schema.maximum}`);
  if (schema.maxLength !== undefined) words.push(`${schema.minLength ?? 0} to ${schema.maxLength} characters`);
  if (schema.pattern !== undefined) words.push(`matches ${schema.pattern}`);
  if (schema.default !== undefined && schema.default !== null) words.push(`default ${JSON.stringify(schema.default)}`);
  if (schema.examples?.length) words.push(`for example ${JSON.stringify(schema.examples[0])}`);
  return [words.join(', '), schema.description].filter(Boolean).join('. ');
}

/**
 * Return a value that a schema permits: an object has its required members, or all members if none is required.
 * @param {Record<string, any>} api
 * @param {Schema} unresolved
 * @param {number} [depth]
 * @returns {any}
 */
export function example(api, unresolved, depth = 0) {
  const schema = resolve(api, unresolved);
  if (depth > MAX_DEPTH) return null; // the schema contains itself
  if (schema.examples?.length) return schema.examples[0];
  if ('const' in schema) return schema.const;
  if (schema.default !== undefined && schema.default !== null) return schema.default;
  if (schema.enum) return schema.enum[0];
  const variants = schema.anyOf ?? schema.oneOf;
  if (variants) return example(api, variants.find((/** @type {Schema} */ variant) => variant.type !== 'null') ?? {}, depth + 1);
  if (schema.allOf) return Object.assign({}, ...schema.allOf.map((/** @type {Schema} */ part) => example(api, part, depth + 1)));
  if (schema.type === 'object' || schema.properties) {
    const properties = schema.properties ?? {};
    const names = schema.required?.length ? schema.required : Object.keys(properties);
    return Object.fromEntries(names.map((/** @type {string} */ name) => [name, example(api, properties[name], depth + 1)]));
  }
  if (schema.type === 'array') return [example(api, schema.items, depth + 1)];
  if (schema.contentMediaType === 'application/json') return JSON.stringify(example(api, schema.contentSchema, depth + 1), null, 2);
  return exampleOfSimpleType(schema);
}

/** @param {Schema} schema */
function exampleOfSimpleType(schema) {
  if (schema.type === 'integer' || schema.type === 'number') return schema.minimum ?? 0;
  if (schema.type === 'boolean') return true;
  if (schema.type !== 'string') return null;
  if (schema.format === 'date-time') return new Date().toISOString();
  return schema.format === 'uri' ? 'https://example.org/' : 'text';
}
