// Send the form of a one-time link as JSON. The token of the link is in the fragment of the address, which browsers do not send.
import { onSubmit } from "./forms.js";
import { send } from "./requests.js";

const form = /** @type {HTMLFormElement} */ (document.querySelector("form.account-form"));
const { link = "", done = "", missing } = form.dataset;
const token = new URLSearchParams(location.hash.slice(1)).get(link);

/**
 * Replace the form by a heading and a sentence with a link.
 * @param {string} title
 * @param {string} sentence
 * @param {boolean} isDone
 */
function showInstead(title, sentence, isDone) {
  const heading = document.createElement("h1");
  heading.textContent = title;
  heading.tabIndex = -1;
  const message = document.createElement("p");
  message.setAttribute("role", isDone ? "status" : "alert");
  const signIn = document.createElement("a");
  signIn.href = "/login";
  signIn.textContent = "Sign in";
  message.append(`${sentence} `, signIn);
  form.replaceChildren(heading, message);
  if (isDone) heading.focus();
}

onSubmit(form, async (values) => {
  const fields = Object.fromEntries([...values].map(([name, value]) => [name, name.endsWith("password") ? value : String(value).trim()]));
  await send("POST", form.action, { ...fields, ...(token === null ? {} : { [link]: token }) });
  history.replaceState(null, "", location.pathname); // the token has been used
  showInstead(done, form.dataset.then ?? "", true);
});
if (token === null && missing) {
  showInstead(/** @type {HTMLElement} */ (form.querySelector("h1")).textContent ?? "", missing, false);
}
for (const part of /** @type {NodeListOf<HTMLElement>} */ (form.querySelectorAll("[data-with-link]"))) part.hidden = token === null;
window.addEventListener("hashchange", () => location.reload()); // another link has been opened on this page
