// Send requests of the pages as JSON, with the CSRF token of the page.

/**
 * A response of the service that is an error. The message is a sentence for the user, and `errors` are those of fields by their names.
 */
export class Refusal extends Error {
  /**
   * @param {number} status
   * @param {string} code
   * @param {string} message
   * @param {{name: string, detail: string}[]} errors
   */
  constructor(status, code, message, errors = []) {
    super(message);
    this.status = status;
    this.code = code;
    this.errors = errors;
  }
}

/**
 * Send a request, and return the JSON of the response; null if it has no body.
 * @param {string} method
 * @param {string} path
 * @param {object} [body]
 * @returns {Promise<any>}
 */
export async function send(method, path, body) {
  const headers = new Headers({ Accept: "application/json" });
  const token = /** @type {HTMLMetaElement | null} */ (document.querySelector("meta[name=csrf-token]"))?.content;
  if (token) headers.set("X-CSRF-Token", token);
  if (body) headers.set("Content-Type", "application/json");
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: "no-store" }).catch(() => {
    throw new Error("The service cannot be reached. Try again in a moment.");
  });
  const data = await response.json().catch(() => null);
  if (!response.ok) throw toRefusal(response.status, data);
  return data;
}

/**
 * @param {number} status
 * @param {{code: string, detail: string, errors?: {pointer: string, detail: string}[]} | null} problem
 */
function toRefusal(status, problem) {
  if (!problem) return new Refusal(status, "", `The service answered with status ${status}.`);
  const errors = (problem.errors ?? []).map(({ pointer, detail }) => ({ name: pointer.split("/")[1] ?? "", detail }));
  return new Refusal(status, problem.code, problem.detail, errors);
}
